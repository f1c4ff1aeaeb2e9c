/* The threads of a block as fibers, barriers, collectives of a warp, launches: what runs below cudacpu.h. */
#pragma once
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#include "launch.h"

namespace cudacpu {
enum State : uint8_t { NEW, READY, AT_BARRIER, AT_WARP, DONE };
struct Lane {
    uint3 index;
    State state;
    uint8_t lane;
    unsigned warp;
    void *sp;    /* of the fiber, while it waits */
    char *stack;
};
struct Meeting { /* one collective of a warp that lanes have come to; two values a lane: some may still read the last one's */
    unsigned mask, arrived, pending, number;
    alignas(16) char values[2][32][16];
};
struct Warp {
    unsigned there, returned;
    Meeting meetings[8];
};
struct Block {
    std::vector<Lane> lanes;
    std::vector<Warp> warps;
    std::vector<unsigned> order;
    std::vector<double> shared;
    const CudacpuLaunch *call;
    unsigned next, alive, waiting; /* the first lane of `order` that has not begun; lanes that have not returned; at the barrier */
    unsigned barriers;
    int line; /* of the barrier that threads wait at */
    struct {
        int count, any;
    } votes[3];
    void *home;
    void (*body)(void *);
    void *argument;
    char error[CUDACPU_ERROR];
};
inline Lane *me;
inline Block *block;
inline dim3 grid_dim, block_dim;
inline uint3 block_index;

inline void *dynamic_shared() { return block->shared.data(); }

template <class... A> void fail(const char *format, A... a) {
    if (!block->error[0]) snprintf(block->error, sizeof block->error, format, a...);
}

/* --- fibers ------------------------------------------------------------------------------------------------------------- */

/* Keeps what a function has to keep, goes on with another stack. `fresh` makes a stack that begins at a function. */
#if defined(__x86_64__)
__attribute__((naked, noinline)) static void swap(void **from, void *to) {
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp,(%rdi)\n"
        "movq %rsi,%rsp\n popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
inline void *fresh(char *top, void (*entry)()) {
    void **sp = reinterpret_cast<void **>(top - 256);
    for (int i = 0; i < 8; i++) sp[i] = nullptr;
    sp[6] = reinterpret_cast<void *>(entry);
    return sp;
}
#elif defined(__aarch64__)
extern "C" void cudacpu_swap(void **from, void *to);
asm(".text\n.local cudacpu_swap\n.type cudacpu_swap,%function\ncudacpu_swap:\n"
    "sub sp,sp,#160\n stp x19,x20,[sp]\n stp x21,x22,[sp,#16]\n stp x23,x24,[sp,#32]\n stp x25,x26,[sp,#48]\n"
    "stp x27,x28,[sp,#64]\n stp x29,x30,[sp,#80]\n stp d8,d9,[sp,#96]\n stp d10,d11,[sp,#112]\n stp d12,d13,[sp,#128]\n"
    "stp d14,d15,[sp,#144]\n mov x9,sp\n str x9,[x0]\n mov sp,x1\n ldp x19,x20,[sp]\n ldp x21,x22,[sp,#16]\n"
    "ldp x23,x24,[sp,#32]\n ldp x25,x26,[sp,#48]\n ldp x27,x28,[sp,#64]\n ldp x29,x30,[sp,#80]\n ldp d8,d9,[sp,#96]\n"
    "ldp d10,d11,[sp,#112]\n ldp d12,d13,[sp,#128]\n ldp d14,d15,[sp,#144]\n add sp,sp,#160\n ret\n");
inline void swap(void **from, void *to) { cudacpu_swap(from, to); }
inline void *fresh(char *top, void (*entry)()) {
    void **sp = reinterpret_cast<void **>(top - 256);
    memset(sp, 0, 160);
    sp[11] = reinterpret_cast<void *>(entry);
    return sp;
}
#else
#error "fibers.h: expected x86-64 or aarch64, got another processor; add its context switch"
#endif

inline void park(State state) {
    me->state = state;
    Lane *lane = me;
    swap(&lane->sp, block->home);
}
/* The running lane goes no further; its block ends with the error. */
[[noreturn]] inline void stop() {
    for (;;) park(DONE);
}
inline void open_barrier() {
    block->waiting = 0, block->barriers++;
    for (auto &l : block->lanes)
        if (l.state == AT_BARRIER) l.state = READY;
}
/* Runs lanes that have not begun one after another, until one has to wait: kernels without barriers need one stack only. */
inline void fiber() {
    for (;;) {
        char *stack = me->stack;
        block->body(block->argument);
        me->state = DONE, me->stack = nullptr;
        block->warps[me->warp].returned |= 1u << me->lane;
        block->alive--;
        if (block->waiting && block->waiting == block->alive) open_barrier();
        if (block->next == block->lanes.size() || block->error[0]) {
            block->call->give_stack(stack);
            void *dead;
            swap(&dead, block->home);
        }
        me = &block->lanes[block->order[block->next++]];
        me->stack = stack;
    }
}
inline void begin(Lane &lane) {
    lane.stack = block->call->take_stack();
    if (!lane.stack) return fail("no memory for the threads' stacks");
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(lane.stack, CUDACPU_STACK); /* marks of a fiber that an error ended */
#endif
    me = &lane;
    swap(&block->home, fresh(lane.stack + CUDACPU_STACK, fiber));
}
inline bool run_block() {
    Block &b = *block;
    const unsigned n = b.lanes.size();
    b.next = 0, b.alive = n, b.waiting = 0;
    for (auto &w : b.warps) {
        w.returned = 0;
        for (auto &m : w.meetings) m.arrived = m.pending = 0;
    }
    for (auto &l : b.lanes) l.state = NEW;
    while (b.alive && !b.error[0]) {
        bool moved = false;
        if (b.next < n) {
            moved = true;
            begin(b.lanes[b.order[b.next++]]);
        } else {
            for (unsigned i = 0; i < n && !b.error[0]; i++) {
                Lane &l = b.lanes[b.order[i]];
                if (l.state != READY) continue;
                moved = true;
                me = &l;
                swap(&b.home, l.sp);
            }
        }
        if (!moved && !b.error[0]) {
            int warp = 0;
            for (auto &l : b.lanes) warp += l.state == AT_WARP;
            fail("deadlock: %u threads wait at __syncthreads, %d at a warp's collective", b.waiting, warp);
        }
    }
    for (auto &l : b.lanes)
        if (l.stack) {
            b.call->give_stack(l.stack);
            l.stack = nullptr;
        }
    return !b.error[0];
}

/* --- barriers and collectives of a warp -------------------------------------------------------------------------------- */

enum Vote { COUNT, ALL, ANY };
inline int barrier(int line, bool predicate, Vote kind) {
    Block &b = *block;
    auto &votes = b.votes[b.barriers % 3];
    if (!b.waiting) votes.count = votes.any = 0;
    votes.count += predicate, votes.any |= predicate;
    if (b.waiting && b.line != line) fail("threads of one block wait at different barriers (lines %d and %d)", b.line, line);
    b.line = line;
    const int n = b.alive;
    if (++b.waiting == b.alive) open_barrier();
    else park(AT_BARRIER);
    return kind == COUNT ? votes.count : kind == ALL ? votes.count == n : votes.any;
}
/* Every lane of the mask gives a value and gets all of them; the mask of the lanes that there are. */
template <class T> unsigned gather(unsigned mask, const T &value, T *all) {
    static_assert(sizeof(T) <= 16, "a warp's collectives move at most 16 bytes");
    Warp &w = block->warps[me->warp];
    const unsigned mine = 1u << me->lane;
    mask &= w.there;
    if (!(mask & mine)) {
        fail("a lane calls a warp's collective whose mask leaves it out (lane %d, mask %x)", me->lane, mask);
        stop();
    }
    Meeting *m = nullptr;
    for (auto &c : w.meetings)
        if (!m && c.arrived && c.mask == mask && !(c.arrived & mine)) m = &c;
    for (auto &c : w.meetings)
        if (!m && !(c.arrived | c.pending)) {
            m = &c;
            m->mask = mask;
        }
    if (!m) {
        fail("too many collectives of one warp at a time");
        stop();
    }
    const unsigned number = m->number, side = number & 1;
    memcpy(m->values[side][me->lane], &value, sizeof value);
    m->arrived |= mine;
    if (m->arrived == mask) {
        m->arrived = 0, m->pending = mask, m->number++;
        for (unsigned i = 0; i < 32; i++)
            if (mask >> i & 1 && block->lanes[me->warp * 32 + i].state == AT_WARP) block->lanes[me->warp * 32 + i].state = READY;
    } else {
        while (m->number == number) {
            if (m->mask & w.returned) fail("a warp's collective names a lane that has returned (mask %x)", m->mask);
            park(AT_WARP);
        }
    }
    for (unsigned i = 0; i < 32; i++)
        if (mask >> i & 1) memcpy(&all[i], m->values[side][i], sizeof value);
    m->pending &= ~mine;
    return mask;
}
template <class T> T shuffle(unsigned mask, T value, int source, int width) {
    T all[32];
    const int base = me->lane & ~(width - 1);
    mask = gather(mask, value, all);
    return source >= base && source < base + width && mask >> source & 1 ? all[source] : value;
}

/* --- launches ----------------------------------------------------------------------------------------------------------- */

/* Static shared memory is thread-local memory of the object that the kernel is in: (address, bytes) for this thread. */
inline std::pair<void *, size_t> static_shared() {
    static __thread char some;
    asm volatile("" : : "r"(&some)); /* the first touch makes it */
    std::pair<void *, size_t> found{nullptr, 0};
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *out) {
            const ElfW(Addr) here = reinterpret_cast<ElfW(Addr)>(&block);
            bool ours = false;
            size_t size = 0;
            for (int i = 0; i < info->dlpi_phnum; i++) {
                const auto &p = info->dlpi_phdr[i];
                if (p.p_type == PT_LOAD && here >= info->dlpi_addr + p.p_vaddr && here < info->dlpi_addr + p.p_vaddr + p.p_memsz) ours = true;
                if (p.p_type == PT_TLS) size = p.p_memsz;
            }
            if (ours && info->dlpi_tls_data) *static_cast<std::pair<void *, size_t> *>(out) = {info->dlpi_tls_data, size};
            return int(ours);
        },
        &found);
    return found;
}
inline void set_order(std::vector<unsigned> &order) {
    const char *wish = getenv("CUDACPU_ORDER");
    const unsigned n = order.size();
    for (unsigned i = 0; i < n; i++) order[i] = i;
    if (!wish || wish[0] == 'f') return;
    if (wish[0] == 'r') {
        for (unsigned i = 0; i < n; i++) order[i] = n - 1 - i;
        return;
    }
    uint64_t state = strtoull(wish, nullptr, 10) * 2 + 1;
    for (unsigned i = n; i > 1; i--) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(order[i - 1], order[(state >> 33) % i]);
    }
}
inline Block &state() {
    static Block *kept = new Block;
    return *kept;
}
template <class F> int run(const CudacpuLaunch &call, F &kernel) {
    Block &b = *(block = &state());
    const unsigned *size = call.block, *grid = call.grid;
    const unsigned n = size[0] * size[1] * size[2];
    grid_dim = dim3(grid[0], grid[1], grid[2]), block_dim = dim3(size[0], size[1], size[2]);
    b.call = &call, b.error[0] = 0, b.barriers = 0;
    b.lanes.assign(n, Lane{}), b.warps.assign((n + 31) / 32, Warp{}), b.order.resize(n), b.shared.resize((call.shared + 7) / 8);
    for (unsigned i = 0; i < n; i++) {
        b.lanes[i].index = uint3{i % size[0], i / size[0] % size[1], i / (size[0] * size[1])};
        b.lanes[i].warp = i / 32, b.lanes[i].lane = i % 32;
        b.warps[i / 32].there |= 1u << i % 32;
    }
    set_order(b.order);
    b.body = [](void *p) { (*static_cast<F *>(p))(); };
    b.argument = &kernel;
    std::vector<unsigned> blocks(size_t(grid[0]) * grid[1] * grid[2]);
    set_order(blocks);
    const auto fixed = static_shared();
    double unwritten;
    memset(&unwritten, 0xff, sizeof unwritten);
    for (unsigned i : blocks) {
        block_index = uint3{i % grid[0], i / grid[0] % grid[1], i / (grid[0] * grid[1])};
        std::fill(b.shared.begin(), b.shared.end(), unwritten); /* what nothing wrote reads as NaN */
        if (fixed.first) memset(fixed.first, 0xff, fixed.second);
        if (!run_block()) {
            const auto &at = block_index;
            snprintf(call.error, CUDACPU_ERROR, "block (%u,%u,%u): %.200s", at.x, at.y, at.z, b.error);
            return 1;
        }
    }
    return 0;
}
struct Reader {
    const CudacpuLaunch &call;
    size_t at = 0;
    int position = 0;
    bool wrong = false;
};
template <class T> T take(Reader &r) {
    static_assert(std::is_class<T>::value || sizeof(T) == 4 || sizeof(T) == 8, "a kernel's numbers have 4 or 8 bytes");
    static_assert(!std::is_class<T>::value || alignof(T) == 8, "a kernel's structs are 8-byte aligned");
    static_assert(std::is_trivially_copyable<T>::value, "a kernel's parameters are copied as bytes");
    T value;
    memset(static_cast<void *>(&value), 0, sizeof value);
    r.at = (r.at + alignof(T) - 1) / alignof(T) * alignof(T);
    if (r.at + sizeof value <= r.call.size) memcpy(static_cast<void *>(&value), r.call.parameters + r.at, sizeof value);
    r.at += sizeof value;
    if constexpr (std::is_pointer<T>::value) {
        const void *address = reinterpret_cast<const void *>(value);
        if (r.at <= r.call.size && !r.wrong && address && !r.call.known(address)) {
            r.wrong = true;
            snprintf(r.call.error, CUDACPU_ERROR, "parameter %d: %p is no address of device memory", r.position, address);
        }
    }
    r.position++;
    return value;
}
template <class... A> int launch(void (*kernel)(A...), const CudacpuLaunch &call) {
    static_assert((0 + ... + sizeof(A)) <= 4096, "a kernel's parameters have at most 4096 bytes");
    Reader reader{call};
    std::tuple<A...> values{take<A>(reader)...}; /* braces: from left to right */
    if (call.size < reader.at || call.size > (reader.at + 7) / 8 * 8) {
        snprintf(call.error, CUDACPU_ERROR, "expected %zu bytes of parameters, got %zu", reader.at, call.size);
        return 1;
    }
    if (reader.wrong) return 1;
    auto bound = [&] { std::apply(kernel, values); };
    return run(call, bound);
}
}  // namespace cudacpu

#define KERNEL_EXPORT(name)                                                                                                    \
    extern "C" __attribute__((visibility("default"))) int cudacpu_##name(const CudacpuLaunch *call) {                          \
        return cudacpu::launch(name, *call);                                                                                   \
    }

/* --- checks that the compiler puts into kernels (-fsanitize=...), answered here ---------------------------------------- */

#if defined(CUDACPU_CHECKS)
namespace cudacpu {
struct Place { /* as the compiler writes them */
    const char *file;
    unsigned line, column;
};
struct Access {
    Place place;
    const void *type;
    unsigned char log_alignment, kind;
};
[[noreturn]] inline void wrong(const Place &place, const char *what) {
    if (!block) abort(); /* not in a kernel */
    const char *name = strrchr(place.file, '/');
    fail("thread (%u,%u,%u): %s (%.80s:%u)", me->index.x, me->index.y, me->index.z, what, name ? name + 1 : place.file, place.line);
    stop();
}
}  // namespace cudacpu
extern "C" {
__attribute__((visibility("hidden"), weak)) void __ubsan_handle_type_mismatch_v1_abort(const cudacpu::Access *a, uintptr_t address) {
    char what[64];
    if (address) snprintf(what, sizeof what, "misaligned address %p, wants %u", (void *)address, 1u << a->log_alignment);
    cudacpu::wrong(a->place, address ? what : "null pointer");
}
__attribute__((visibility("hidden"), weak)) void __ubsan_handle_out_of_bounds_abort(const cudacpu::Place *place, uintptr_t index) {
    char what[64];
    snprintf(what, sizeof what, "index %ld outside of its array", long(index));
    cudacpu::wrong(*place, what);
}
__attribute__((visibility("hidden"), weak)) void __ubsan_handle_divrem_overflow_abort(const cudacpu::Place *place, uintptr_t, uintptr_t) {
    cudacpu::wrong(*place, "integer division by zero");
}
}
#endif
