/* cudacpu.h: runs a CUDA source on the CPU, for tests. A plain C++17 compiler takes the source with `-include cudacpu.h`.
 *
 * Kernels run block after block; every CUDA thread of a block is a fiber, so that __syncthreads, votes and shuffles of a warp, shared
 * memory and atomics behave as on the device. One host thread, not for speed. It reports threads that wait at different barriers, lanes
 * that left a warp's collective, deadlock, parameters that do not fit the kernel, pointers that are not the device's, null and
 * misaligned accesses, and indices outside of arrays; and it can permute the order of threads and blocks
 * (CUDACPU_ORDER=fwd|rev|SEED), under which a missing barrier shows as other results.
 *
 * A source says KERNEL_EXPORT(name) for each kernel, and DYN_SHARED(T, name) for dynamic shared memory; else it is plain CUDA. Not there:
 * cooperative groups, inline PTX, matrix units, asynchronous copies, textures, clusters.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#include "launch.h"

#define CUDACPU 1
#define __global__
#define __device__
#define __host__
#define __managed__ static
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define CUDACPU_HIDDEN __attribute__((visibility("hidden")))
#define DYN_SHARED(T, name) T *name = reinterpret_cast<T *>(cudacpu::dynamic_shared())

/* --- vector types ----------------------------------------------------------------------------------------------------- */

#define CUDACPU_VECTOR(T, N)                                                                                                   \
    struct N##1 { T x; };                                                                                                      \
    struct alignas(2 * sizeof(T)) N##2 { T x, y; };                                                                            \
    struct N##3 { T x, y, z; };                                                                                                \
    struct alignas(sizeof(T) == 8 ? 16 : 4 * sizeof(T)) N##4 { T x, y, z, w; };                                                \
    inline N##1 make_##N##1(T x) { return {x}; }                                                                               \
    inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                                                       \
    inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }                                                               \
    inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDACPU_VECTOR(signed char, char)
CUDACPU_VECTOR(unsigned char, uchar)
CUDACPU_VECTOR(short, short)
CUDACPU_VECTOR(unsigned short, ushort)
CUDACPU_VECTOR(int, int)
CUDACPU_VECTOR(unsigned, uint)
CUDACPU_VECTOR(long, long)
CUDACPU_VECTOR(unsigned long, ulong)
CUDACPU_VECTOR(long long, longlong)
CUDACPU_VECTOR(unsigned long long, ulonglong)
CUDACPU_VECTOR(float, float)
CUDACPU_VECTOR(double, double)
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

/* --- threads of a block, as fibers ------------------------------------------------------------------------------------- */

namespace cudacpu {
enum State : uint8_t { NEW, READY, AT_BARRIER, AT_WARP, DONE };
struct Lane {
    uint3 index;
    State state;
    uint8_t lane;
    unsigned warp;
    int line;     /* of the barrier that it waits at */
    void *sp;     /* of the fiber, while it waits */
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
    std::vector<char *> stacks;
    std::vector<double> shared;
    unsigned next, alive, waiting; /* the first lane of `order` that has not begun; lanes that have not returned; at the barrier */
    unsigned barriers;
    struct { int count, any; } votes[3];
    void *home;
    void (*body)(void *);
    void *argument;
    char error[CUDACPU_ERROR_SIZE];
};
inline Lane *me;
inline Block *block;
inline dim3 grid_dim, block_dim;
inline uint3 block_index;
constexpr size_t STACK = 256 << 10, PAGE = 4096;

inline void *dynamic_shared() { return block->shared.data(); }

#if defined(__x86_64__)
__attribute__((naked, noinline)) static void swap(void **from, void *to) {
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp,(%rdi)\n"
        "movq %rsi,%rsp\n popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
inline void *fresh(char *top, void (*entry)()) { /* a stack that `swap` enters at `entry` */
    void **sp = reinterpret_cast<void **>(top - 256);
    for (int i = 0; i < 8; i++) sp[i] = nullptr;
    sp[6] = reinterpret_cast<void *>(entry);
    return sp;
}
#elif defined(__aarch64__)
asm(".text\n.local cudacpu_swap\n.type cudacpu_swap,%function\ncudacpu_swap:\n"
    "sub sp,sp,#160\n stp x19,x20,[sp]\n stp x21,x22,[sp,#16]\n stp x23,x24,[sp,#32]\n stp x25,x26,[sp,#48]\n"
    "stp x27,x28,[sp,#64]\n stp x29,x30,[sp,#80]\n stp d8,d9,[sp,#96]\n stp d10,d11,[sp,#112]\n stp d12,d13,[sp,#128]\n"
    "stp d14,d15,[sp,#144]\n mov x9,sp\n str x9,[x0]\n mov sp,x1\n ldp x19,x20,[sp]\n ldp x21,x22,[sp,#16]\n"
    "ldp x23,x24,[sp,#32]\n ldp x25,x26,[sp,#48]\n ldp x27,x28,[sp,#64]\n ldp x29,x30,[sp,#80]\n ldp d8,d9,[sp,#96]\n"
    "ldp d10,d11,[sp,#112]\n ldp d12,d13,[sp,#128]\n ldp d14,d15,[sp,#144]\n add sp,sp,#160\n ret\n");
extern "C" void cudacpu_swap(void **from, void *to);
inline void swap(void **from, void *to) { cudacpu_swap(from, to); }
inline void *fresh(char *top, void (*entry)()) {
    void **sp = reinterpret_cast<void **>(top - 256);
    memset(sp, 0, 160);
    sp[11] = reinterpret_cast<void *>(entry);
    return sp;
}
#else
#error "cudacpu.h: expected x86-64 or aarch64, got another processor; add its context switch"
#endif

template <class... A> void fail(const char *format, A... a) {
    if (!block->error[0]) snprintf(block->error, sizeof block->error, format, a...);
}
inline void park(State state) {
    me->state = state;
    Lane *lane = me;
    swap(&lane->sp, block->home);
}
/* The running lane stops here for good; with an error set, so does its block. */
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
            block->stacks.push_back(stack);
            void *dead;
            swap(&dead, block->home);
        }
        me = &block->lanes[block->order[block->next++]];
        me->stack = stack;
    }
}
inline void begin(Lane &lane) {
    if (block->stacks.empty()) {
        void *p = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return fail("no memory for the threads' stacks");
        mprotect(p, PAGE, PROT_NONE);
        block->stacks.push_back(static_cast<char *>(p));
    }
    lane.stack = block->stacks.back();
    block->stacks.pop_back();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(lane.stack + PAGE, STACK - PAGE); /* marks of a fiber that an error ended */
#endif
    me = &lane;
    swap(&block->home, fresh(lane.stack + STACK, fiber));
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
            b.stacks.push_back(l.stack);
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
    me->line = line;
    if (b.waiting)
        for (auto &l : b.lanes)
            if (l.state == AT_BARRIER) {
                if (l.line != line) fail("threads of one block wait at different barriers (lines %d and %d)", l.line, line);
                break;
            }
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
    if (!(mask & mine)) fail("a lane calls a warp's collective whose mask leaves it out (lane %d)", me->lane);
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

inline void shuffle_order(std::vector<unsigned> &order) {
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
template <class F> int run(const CudacpuLaunch &call, F &kernel) {
    static Block *kept = new Block;
    Block &b = *(block = kept);
    const unsigned *size = call.block;
    const unsigned n = size[0] * size[1] * size[2];
    grid_dim = dim3(call.grid[0], call.grid[1], call.grid[2]), block_dim = dim3(size[0], size[1], size[2]);
    b.error[0] = 0, b.barriers = 0;
    b.lanes.assign(n, Lane{}), b.warps.assign((n + 31) / 32, Warp{}), b.order.resize(n), b.shared.resize((call.shared + 7) / 8);
    for (unsigned i = 0; i < n; i++) {
        b.lanes[i].index = uint3{i % size[0], i / size[0] % size[1], i / (size[0] * size[1])};
        b.lanes[i].warp = i / 32, b.lanes[i].lane = i % 32;
        b.warps[i / 32].there |= 1u << i % 32;
    }
    shuffle_order(b.order);
    b.body = [](void *p) { (*static_cast<F *>(p))(); };
    b.argument = &kernel;
    std::vector<unsigned> blocks(size_t(call.grid[0]) * call.grid[1] * call.grid[2]);
    shuffle_order(blocks);
    for (unsigned i : blocks) {
        block_index = uint3{i % call.grid[0], i / call.grid[0] % call.grid[1], i / (call.grid[0] * call.grid[1])};
        if (call.shared) memset(b.shared.data(), 0xff, b.shared.size() * 8); /* what nothing wrote reads as NaN */
        if (!run_block()) {
            snprintf(call.error, CUDACPU_ERROR_SIZE, "block (%u,%u,%u): %.200s", block_index.x, block_index.y, block_index.z, b.error);
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
            snprintf(r.call.error, CUDACPU_ERROR_SIZE, "parameter %d: %p is no address of device memory", r.position, address);
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
        snprintf(call.error, CUDACPU_ERROR_SIZE, "expected %zu bytes of parameters, got %zu", reader.at, call.size);
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

/* --- what a kernel sees ------------------------------------------------------------------------------------------------- */

#define threadIdx (cudacpu::me->index)
#define blockIdx (cudacpu::block_index)
#define blockDim (cudacpu::block_dim)
#define gridDim (cudacpu::grid_dim)
#define warpSize 32
#define __syncthreads() ((void)cudacpu::barrier(__LINE__, false, cudacpu::COUNT))
#define __syncthreads_count(p) cudacpu::barrier(__LINE__, (p) != 0, cudacpu::COUNT)
#define __syncthreads_and(p) cudacpu::barrier(__LINE__, (p) != 0, cudacpu::ALL)
#define __syncthreads_or(p) cudacpu::barrier(__LINE__, (p) != 0, cudacpu::ANY)

inline unsigned __ballot_sync(unsigned mask, int p) {
    unsigned char all[32];
    mask = cudacpu::gather<unsigned char>(mask, p != 0, all);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1 && all[i]) bits |= 1u << i;
    return bits;
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    char all[32];
    cudacpu::gather<char>(mask, 0, all);
}
inline unsigned __activemask() {
    const auto &warp = cudacpu::block->warps[cudacpu::me->warp];
    return warp.there & ~warp.returned;
}
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
    return cudacpu::shuffle(mask, v, (cudacpu::me->lane & ~(width - 1)) + (source & (width - 1)), width);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32) {
    return cudacpu::shuffle(mask, v, int(cudacpu::me->lane) - int(d), width);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32) {
    return cudacpu::shuffle(mask, v, int(cudacpu::me->lane + d), width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
    return cudacpu::shuffle(mask, v, int(cudacpu::me->lane) ^ x, width);
}
template <class T> unsigned __match_any_sync(unsigned mask, T v) {
    T all[32];
    mask = cudacpu::gather(mask, v, all);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1 && all[i] == v) bits |= 1u << i;
    return bits;
}

#define CUDACPU_ATOMIC(name, result)                                                                                           \
    template <class T> T name(T *p, std::common_type_t<T> v) {                                                                 \
        const T old = *p;                                                                                                      \
        *p = (result);                                                                                                         \
        return old;                                                                                                            \
    }                                                                                                                          \
    template <class T> T name##_block(T *p, std::common_type_t<T> v) { return name(p, v); }
CUDACPU_ATOMIC(atomicAdd, old + v)
CUDACPU_ATOMIC(atomicSub, old - v)
CUDACPU_ATOMIC(atomicExch, v)
CUDACPU_ATOMIC(atomicMax, old > v ? old : v)
CUDACPU_ATOMIC(atomicMin, old < v ? old : v)
CUDACPU_ATOMIC(atomicAnd, old & v)
CUDACPU_ATOMIC(atomicOr, old | v)
CUDACPU_ATOMIC(atomicXor, old ^ v)
CUDACPU_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
CUDACPU_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
template <class T> T atomicCAS(T *p, std::common_type_t<T> compare, std::common_type_t<T> v) {
    const T old = *p;
    if (old == compare) *p = v;
    return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap() {
    cudacpu::fail("__trap in thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
    cudacpu::stop();
}
#undef assert
#define assert(condition)                                                                                                      \
    ((condition) ? (void)0 : (cudacpu::fail("line %d: assertion `%s` failed", __LINE__, #condition), cudacpu::stop()))

#define CUDACPU_LOAD(name)                                                                                                     \
    template <class T> T name(const T *p) { return *p; }
CUDACPU_LOAD(__ldg)
CUDACPU_LOAD(__ldca)
CUDACPU_LOAD(__ldcg)
CUDACPU_LOAD(__ldcs)
CUDACPU_LOAD(__ldlu)
CUDACPU_LOAD(__ldcv)
#define CUDACPU_STORE(name)                                                                                                    \
    template <class T> void name(T *p, std::common_type_t<T> v) { *p = v; }
CUDACPU_STORE(__stwb)
CUDACPU_STORE(__stcg)
CUDACPU_STORE(__stcs)
CUDACPU_STORE(__stwt)

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return result;
}

template <class To, class From> To cudacpu_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits are kept");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int x) { return cudacpu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cudacpu_bits<float>(x); }
inline int __float_as_int(float x) { return cudacpu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cudacpu_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return cudacpu_bits<double>(x); }
inline long long __double_as_longlong(double x) { return cudacpu_bits<long long>(x); }
inline double __hiloint2double(int high, int low) { return cudacpu_bits<double>(uint64_t(unsigned(high)) << 32 | unsigned(low)); }
inline int __double2hiint(double x) { return int(cudacpu_bits<uint64_t>(x) >> 32); }
inline int __double2loint(double x) { return int(cudacpu_bits<uint64_t>(x)); }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline double rcbrt(double x) { return 1.0 / cbrt(x); }
inline float sinpif(float x) { return float(sin(M_PI * double(x))); }
inline float cospif(float x) { return float(cos(M_PI * double(x))); }
inline double sinpi(double x) { return sin(M_PI * x); }
inline double cospi(double x) { return cos(M_PI * x); }
inline float normcdff(float x) { return 0.5f * erfcf(x * -0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
template <class T> T min(T a, std::common_type_t<T> b) { return b < a ? b : a; }
template <class T> T max(T a, std::common_type_t<T> b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
