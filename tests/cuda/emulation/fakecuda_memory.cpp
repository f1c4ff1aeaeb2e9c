/* Memory of the emulated device: blocks between marked borders and pages that nobody may touch, copies and fills. */
#include <sys/mman.h>

#include "fakecuda.h"

namespace {
const size_t BORDER = 512, PAGE = 4096;
const uint64_t MARK = 0xa5a5a5a5a5a5a5a5;
enum Side { HOST, DEVICE };

bool in_device(Address p, size_t n) {
    auto i = block_of(blocks, p);
    if (i != blocks.end() && p + n <= i->first + i->second.size) return true;
    auto h = block_of(pinned, p);
    return h != pinned.end() && p + n <= h->first + h->second;
}
size_t used(int device) {
    size_t n = 0;
    for (auto &b : blocks)
        if (b.second.device == device) n += b.second.size;
    return n;
}

/* A block's pages: what nobody may touch, a border, the block, a border, what nobody may touch. */
struct Pages {
    char *begin, *end; /* of those that can be touched */
    explicit Pages(Address p, size_t n) {
        end = reinterpret_cast<char *>((p + n + BORDER + PAGE - 1) / PAGE * PAGE);
        begin = end - (n + 2 * BORDER + 512 + PAGE - 1) / PAGE * PAGE;
    }
};
void mark(char *from, char *to) {
    for (; from < to && reinterpret_cast<Address>(from) % 8; from++) *from = char(MARK);
    for (; from + 8 <= to; from += 8) *reinterpret_cast<uint64_t *>(from) = MARK;
    for (; from < to; from++) *from = char(MARK);
}
bool marked(const char *from, const char *to) {
    for (; from < to && reinterpret_cast<Address>(from) % 8; from++)
        if (*from != char(MARK)) return false;
    for (; from + 8 <= to; from += 8)
        if (*reinterpret_cast<const uint64_t *>(from) != MARK) return false;
    for (; from < to; from++)
        if (*from != char(MARK)) return false;
    return true;
}
bool whole(Address p, const Block &b) {
    if (sanitized()) return true;
    const char *at = reinterpret_cast<char *>(p);
    return marked(at - BORDER, at) && marked(at + b.size, at + b.size + BORDER);
}
Result allocate(Address *p, size_t n) {
    if (!n) return INVALID_VALUE;
    if (used(device_of_context()) + n > size_t(setting("MEMORY"))) return OUT_OF_MEMORY;
    const size_t size = (n + 2 * BORDER + 512 + PAGE - 1) / PAGE * PAGE;
    void *got = mmap(nullptr, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) return OUT_OF_MEMORY;
    char *begin = static_cast<char *>(got) + PAGE, *end = begin + size;
    if (mprotect(begin, size, PROT_READ | PROT_WRITE)) return munmap(got, size + 2 * PAGE), OUT_OF_MEMORY;
    *p = (reinterpret_cast<Address>(end) - BORDER - n) / 512 * 512;
    char *at = reinterpret_cast<char *>(*p);
    mark(begin, at), mark(at + n, end);
    memset(at, 0xff, n);
    if (sanitized()) __asan_poison_memory_region(begin, at - begin), __asan_poison_memory_region(at + n, end - at - n);
    blocks[*p] = {n, device_of_context()};
    return SUCCESS;
}
void release(Address p, size_t n) {
    const Pages pages(p, n);
    if (sanitized()) __asan_unpoison_memory_region(pages.begin, pages.end - pages.begin);
    munmap(pages.begin - PAGE, pages.end - pages.begin + 2 * PAGE);
}
Result copy(Address to, Side to_side, Address from, Side from_side, size_t n) {
    counts.transfers++;
    if (to_side == DEVICE && !in_device(to, n)) return say(ILLEGAL_ADDRESS, "a copy of %zu bytes to %p, outside of device memory", n, (void *)to);
    if (from_side == DEVICE && !in_device(from, n))
        return say(ILLEGAL_ADDRESS, "a copy of %zu bytes from %p, outside of device memory", n, (void *)from);
    if (to_side == DEVICE && from_side == DEVICE && to < from + n && from < to + n && to != from && n)
        return say(ILLEGAL_ADDRESS, "a copy of %zu bytes between places that overlap", n);
    memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), n);
    return SUCCESS;
}
template <class T> Result fill(Address to, T value, size_t n) {
    if (to % sizeof(T)) return INVALID_VALUE;
    if (!in_device(to, n * sizeof(T))) return say(ILLEGAL_ADDRESS, "a fill of %zu bytes at %p, outside of device memory", n * sizeof(T), (void *)to);
    for (size_t i = 0; i < n; i++) reinterpret_cast<T *>(to)[i] = value;
    return SUCCESS;
}
}  // namespace

int known(const void *p) { return in_device(reinterpret_cast<Address>(p), 0); }
Result check_borders(const char *who) {
    for (auto &b : blocks)
        if (!whole(b.first, b.second)) {
            char *at = reinterpret_cast<char *>(b.first);
            mark(at - BORDER, at), mark(at + b.second.size, at + b.second.size + BORDER);
            return say(ILLEGAL_ADDRESS, "%s wrote outside of a block of %zu bytes at %p", who, b.second.size, (void *)at);
        }
    return SUCCESS;
}

API cuMemAlloc_v2(Address *p, size_t n) {
    IN_CONTEXT;
    SAFE("cuMemAlloc");
    return allocate(p, n);
}
API cuMemAllocManaged(Address *p, size_t n, unsigned) { return cuMemAlloc_v2(p, n); }
API cuMemAllocPitch_v2(Address *p, size_t *pitch, size_t width, size_t height, unsigned) {
    *pitch = (width + 511) / 512 * 512;
    return cuMemAlloc_v2(p, *pitch * height);
}
API cuMemFree_v2(Address p) {
    LOCKED;
    SAFE("cuMemFree");
    auto i = blocks.find(p);
    if (i == blocks.end()) return say(INVALID_VALUE, "cuMemFree of %p, which is no block", (void *)p);
    drain_all();
    if (!whole(p, i->second) && !sticky) sticky = say(ILLEGAL_ADDRESS, "somebody wrote outside of a block of %zu bytes", i->second.size);
    release(p, i->second.size);
    blocks.erase(i);
    return sticky;
}
API cuMemGetInfo_v2(size_t *unused, size_t *total) {
    IN_CONTEXT;
    *total = setting("MEMORY");
    const size_t n = used(device_of_context());
    return *unused = n < *total ? *total - n : 0, SUCCESS;
}
API cuMemGetAddressRange_v2(Address *begin, size_t *n, Address p) {
    LOCKED;
    auto i = block_of(blocks, p);
    if (i == blocks.end() || p >= i->first + i->second.size) return NOT_FOUND;
    if (begin) *begin = i->first;
    if (n) *n = i->second.size;
    return SUCCESS;
}
API cuMemHostAlloc(void **p, size_t n, unsigned) {
    IN_CONTEXT;
    SAFE("cuMemHostAlloc");
    if (posix_memalign(p, 4096, n ? n : 1)) return OUT_OF_MEMORY;
    return pinned[reinterpret_cast<Address>(*p)] = n, SUCCESS;
}
API cuMemAllocHost_v2(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
API cuMemFreeHost(void *p) {
    LOCKED;
    SAFE("cuMemFreeHost");
    if (!pinned.erase(reinterpret_cast<Address>(p))) return INVALID_VALUE;
    drain_all();
    return free(p), SUCCESS;
}
API cuMemHostRegister_v2(void *p, size_t n, unsigned) {
    LOCKED;
    return pinned[reinterpret_cast<Address>(p)] = n, SUCCESS;
}
API cuMemHostUnregister(void *p) {
    LOCKED;
    return pinned.erase(reinterpret_cast<Address>(p)) ? SUCCESS : INVALID_VALUE;
}
API cuMemHostGetDevicePointer_v2(Address *p, void *host, unsigned) { return *p = reinterpret_cast<Address>(host), SUCCESS; }
API cuMemHostGetFlags(unsigned *flags, void *) { return *flags = 0, SUCCESS; }

/* Copies that the host waits for run on the legacy stream. */
static int at_once(Work work) {
    if (Result r = put(nullptr, std::move(work))) return r;
    return drain(&legacy);
}
API cuMemcpyHtoD_v2(Address to, const void *from, size_t n) {
    IN_CONTEXT;
    return at_once([=] { return copy(to, DEVICE, reinterpret_cast<Address>(from), HOST, n); });
}
API cuMemcpyDtoH_v2(void *to, Address from, size_t n) {
    IN_CONTEXT;
    return at_once([=] { return copy(reinterpret_cast<Address>(to), HOST, from, DEVICE, n); });
}
API cuMemcpyDtoD_v2(Address to, Address from, size_t n) {
    IN_CONTEXT;
    return put(nullptr, [=] { return copy(to, DEVICE, from, DEVICE, n); });
}
API cuMemcpyPeer(Address to, void *, Address from, void *, size_t n) { return cuMemcpyDtoD_v2(to, from, n); }
/* From memory that is not pinned the driver copies before it returns; to it, when it has run. */
API cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t n, void *stream) {
    IN_CONTEXT;
    const Address source = reinterpret_cast<Address>(from);
    auto in = block_of(pinned, source);
    if (in != pinned.end() && source + n <= in->first + in->second) return put(stream, [=] { return copy(to, DEVICE, source, HOST, n); });
    std::vector<char> kept(static_cast<const char *>(from), static_cast<const char *>(from) + n);
    return put(stream, [=] { return copy(to, DEVICE, reinterpret_cast<Address>(kept.data()), HOST, n); });
}
API cuMemcpyDtoHAsync_v2(void *to, Address from, size_t n, void *stream) {
    IN_CONTEXT;
    return put(stream, [=] { return copy(reinterpret_cast<Address>(to), HOST, from, DEVICE, n); });
}
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t n, void *stream) {
    IN_CONTEXT;
    return put(stream, [=] { return copy(to, DEVICE, from, DEVICE, n); });
}
API cuMemcpyPeerAsync(Address to, void *, Address from, void *, size_t n, void *stream) { return cuMemcpyDtoDAsync_v2(to, from, n, stream); }

API cuMemsetD8Async(Address to, unsigned char value, size_t n, void *stream) {
    IN_CONTEXT;
    return put(stream, [=] { return fill(to, value, n); });
}
API cuMemsetD16Async(Address to, unsigned short value, size_t n, void *stream) {
    IN_CONTEXT;
    return put(stream, [=] { return fill(to, value, n); });
}
API cuMemsetD32Async(Address to, unsigned value, size_t n, void *stream) {
    IN_CONTEXT;
    return put(stream, [=] { return fill(to, value, n); });
}
API cuMemsetD8_v2(Address to, unsigned char value, size_t n) { return cuMemsetD8Async(to, value, n, nullptr); }
API cuMemsetD16_v2(Address to, unsigned short value, size_t n) { return cuMemsetD16Async(to, value, n, nullptr); }
API cuMemsetD32_v2(Address to, unsigned value, size_t n) { return cuMemsetD32Async(to, value, n, nullptr); }
