/* A CUDA driver for tests on machines without a GPU: a libcuda.so.1 that runs kernels which cudacpu.h compiled.
 *
 * Memory of the device is memory of the host, filled with 0xff (NaN) and with marked borders on both sides; a "cubin" is a shared object
 * of this processor whose kernels are exported; streams run at once, or when somebody waits for them; capture records what is put on a
 * stream into a graph. What a driver forbids (memory from another life, calls that a capture does not allow, more shared memory than was
 * asked for) gives the driver's error, and stderr says more. One lock: threads take turns.
 *
 * Switches, from the environment or by fakecuda_set("LAZY", 1):
 *   FAKECUDA_DEVICES     GPUs (1)
 *   FAKECUDA_VERSION     the driver's version (13000)
 *   FAKECUDA_MEMORY      bytes of memory of each GPU (4 GiB)
 *   FAKECUDA_LAZY        1: streams run only when somebody waits for them, to find waits that are missing
 *   FAKECUDA_LOSE_AFTER  after so many more launches every call gives error 719, as when a GPU is lost
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "launch.h"

namespace {
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    FILE_NOT_FOUND = 301,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
};
const struct {
    int code;
    const char *name, *text;
} ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
};

typedef uint64_t Address;
typedef std::function<Result()> Work;
struct Stream;

struct Graph {
    std::vector<Work> nodes;
    Stream *origin = nullptr;
    std::set<Stream *> open; /* joined streams whose newest work the origin does not wait for */
    bool invalid = false;
    int mode = 0;
};
struct Stream {
    std::deque<Work> queue;
    uint64_t put = 0, done = 0; /* works so far */
    std::shared_ptr<Graph> capture;
};
struct Event {
    double time = 0;
    Stream *stream = nullptr;
    uint64_t position = 0; /* works of the stream before it */
    std::shared_ptr<Graph> capture;
    bool timed = true;
};
typedef int (*Kernel)(const CudacpuLaunch *);
struct Function {
    Kernel kernel;
    std::string name;
    unsigned shared = 0; /* the most dynamic shared memory that was asked for; 0: the default */
};
struct Module {
    void *object;
    std::map<std::string, std::unique_ptr<Function>> functions;
};
struct Context {
    int device;
};
struct Block {
    size_t size;
    int device;
};

const size_t BORDER = 512, DEFAULT_SHARED = 48 << 10, MOST_SHARED = 227 << 10;
const unsigned char MARK = 0xa5;

std::recursive_mutex lock;
bool initialized;
int sticky; /* the error that ended the contexts, if any */
std::string last;
thread_local std::vector<Context *> current;
thread_local int captures; /* that this thread began, in a mode that forbids unsafe calls */
Context primary[16] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}};
std::map<Address, Block> blocks;
std::map<Address, size_t> pinned;
Stream legacy;
std::set<Stream *> streams;
std::set<Graph *> capturing;
struct Counts {
    long launches, captured, graph_launches, live, bytes, streams, events, modules, transfers;
} counts;

std::map<std::string, long> &switches() {
    static std::map<std::string, long> known = [] {
        std::map<std::string, long> all{{"DEVICES", 1}, {"VERSION", 13000}, {"MEMORY", 4L << 30}, {"LAZY", 0}, {"LOSE_AFTER", -1}};
        for (auto &s : all)
            if (const char *given = getenv(("FAKECUDA_" + s.first).c_str())) s.second = atol(given);
        return all;
    }();
    return known;
}
long setting(const char *name) { return switches()[name]; }

template <class... A> Result say(Result result, const char *format, A... a) {
    char line[512];
    snprintf(line, sizeof line, format, a...);
    last = line;
    fprintf(stderr, "fakecuda: %s\n", line);
    return result;
}
double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* --- streams ------------------------------------------------------------------------------------------------------------ */

Stream *stream_of(void *handle) { return reinterpret_cast<uintptr_t>(handle) <= 2 ? &legacy : static_cast<Stream *>(handle); }
bool there(Stream *s) { return s == &legacy || streams.count(s); }

/* Runs a stream's work up to a position. */
Result run_until(Stream *s, uint64_t position) {
    while (s->done < position && !s->queue.empty()) {
        Work work = std::move(s->queue.front());
        s->queue.pop_front();
        Result r = sticky ? Result(sticky) : work();
        s->done++;
        if (r) sticky = r;
    }
    return Result(sticky);
}
Result drain(Stream *s) { return run_until(s, s->put); }
Result drain_all() {
    for (auto *s : streams) drain(s);
    return drain(&legacy);
}
/* Puts a work on a stream: into the graph that it captures, at the end of its queue, or at once. */
Result put(void *handle, Work work) {
    Stream *s = stream_of(handle);
    if (!there(s)) return say(INVALID_HANDLE, "a call on a stream that was destroyed");
    if (s->capture) {
        if (s->capture->invalid) return CAPTURE_INVALIDATED;
        s->capture->nodes.push_back(std::move(work));
        if (s != s->capture->origin) s->capture->open.insert(s);
        return SUCCESS;
    }
    if (s == &legacy && !capturing.empty()) {
        for (auto *g : capturing) g->invalid = true;
        return say(CAPTURE_IMPLICIT, "work on the legacy stream during a capture");
    }
    if (s == &legacy) drain_all();
    s->queue.push_back(std::move(work));
    s->put++;
    return setting("LAZY") ? Result(sticky) : drain(s);
}
/* What a thread that captures may not do (cudaStreamCaptureModeGlobal and ThreadLocal). */
Result unsafe(const char *what) {
    bool global = false;
    for (auto *g : capturing) global |= g->mode == 0;
    if (!captures && !global) return SUCCESS;
    for (auto *g : capturing) g->invalid = true;
    return say(CAPTURE_UNSUPPORTED, "%s during a capture", what);
}

/* --- memory ------------------------------------------------------------------------------------------------------------- */

template <class M> typename M::iterator block_of(M &in, Address p) {
    auto i = in.upper_bound(p);
    return i == in.begin() ? in.end() : --i;
}
bool in_device(Address p, size_t n) {
    auto i = block_of(blocks, p);
    if (i != blocks.end() && p + n <= i->first + i->second.size) return true;
    auto h = block_of(pinned, p);
    return h != pinned.end() && p + n <= h->first + h->second;
}
int known(const void *p) { return in_device(reinterpret_cast<Address>(p), 0); }

bool whole(Address p, const Block &b) {
    const unsigned char *before = reinterpret_cast<unsigned char *>(p) - BORDER, *after = reinterpret_cast<unsigned char *>(p) + b.size;
    for (size_t i = 0; i < BORDER; i++)
        if (before[i] != MARK || after[i] != MARK) return false;
    return true;
}
/* Whether nobody wrote just outside of a block. */
Result check_borders(const char *who) {
    for (auto &b : blocks)
        if (!whole(b.first, b.second)) {
            memset(reinterpret_cast<char *>(b.first) - BORDER, MARK, BORDER);
            memset(reinterpret_cast<char *>(b.first) + b.second.size, MARK, BORDER);
            return say(ILLEGAL_ADDRESS, "%s wrote outside of a block of %zu bytes at %p", who, b.second.size, (void *)b.first);
        }
    return SUCCESS;
}
int device_of_context() { return current.empty() ? 0 : current.back()->device; }
size_t used(int device) {
    size_t n = 0;
    for (auto &b : blocks)
        if (b.second.device == device) n += b.second.size;
    return n;
}
Result allocate(Address *p, size_t n) {
    if (!n) return INVALID_VALUE;
    void *raw = nullptr;
    if (used(device_of_context()) + n > size_t(setting("MEMORY")) || posix_memalign(&raw, 512, n + 2 * BORDER)) return OUT_OF_MEMORY;
    memset(raw, MARK, n + 2 * BORDER);
    *p = reinterpret_cast<Address>(raw) + BORDER;
    memset(reinterpret_cast<void *>(*p), 0xff, n);
    blocks[*p] = {n, device_of_context()};
    return SUCCESS;
}

enum Side { HOST, DEVICE };
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

#define API extern "C" __attribute__((visibility("default"))) int
#define LOCKED std::lock_guard<std::recursive_mutex> held(lock)
/* Calls that want a context: no context, or one that is lost. */
#define IN_CONTEXT                                                                                                              \
    LOCKED;                                                                                                                     \
    if (current.empty()) return INVALID_CONTEXT;                                                                                \
    if (sticky) return sticky
#define SAFE(what)                                                                                                              \
    if (Result r = unsafe(what)) return r

/* --- driver, devices, contexts ------------------------------------------------------------------------------------------ */

API cuInit(unsigned) {
    LOCKED;
    if (setting("DEVICES") == 0) return NO_DEVICE;
    initialized = true;
    return SUCCESS;
}
API cuDriverGetVersion(int *version) { return *version = setting("VERSION"), SUCCESS; }
API cuGetErrorString(int code, const char **text) {
    for (auto &e : ERRORS)
        if (e.code == code) return *text = e.text, SUCCESS;
    return *text = nullptr, INVALID_VALUE;
}
API cuGetErrorName(int code, const char **name) {
    for (auto &e : ERRORS)
        if (e.code == code) return *name = e.name, SUCCESS;
    return *name = nullptr, INVALID_VALUE;
}
API cuDeviceGetCount(int *n) {
    *n = 0;
    if (!initialized) return NOT_INITIALIZED;
    return *n = setting("DEVICES"), SUCCESS;
}
API cuDeviceGet(int *device, int number) {
    if (!initialized) return NOT_INITIALIZED;
    if (number < 0 || number >= setting("DEVICES")) return INVALID_DEVICE;
    return *device = number, SUCCESS;
}
API cuDeviceGetName(char *name, int n, int) { return snprintf(name, n, "fakecuda (this machine's processor)"), SUCCESS; }
API cuDeviceComputeCapability(int *major, int *minor, int) { return *major = 9, *minor = 0, SUCCESS; }
API cuDeviceTotalMem_v2(size_t *n, int) { return *n = setting("MEMORY"), SUCCESS; }
API cuDeviceGetPCIBusId(char *name, int n, int device) { return snprintf(name, n, "0000:%02x:00.0", device), SUCCESS; }
API cuDeviceCanAccessPeer(int *can, int, int) { return *can = 1, SUCCESS; }
API cuDeviceGetAttribute(int *value, int attribute, int) {
    static const std::map<int, int> known{
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, int(DEFAULT_SHARED)}, {9, 65536},
        {10, 32}, {12, 65536}, {13, 1000000}, {16, 2}, {31, 1}, {39, 2048}, {41, 1}, {75, 9}, {76, 0}, {81, 228 << 10}, {97, int(MOST_SHARED)}};
    auto found = known.find(attribute);
    return *value = found == known.end() ? 0 : found->second, SUCCESS;
}
API cuDevicePrimaryCtxRetain(void **context, int device) {
    if (device < 0 || device >= setting("DEVICES") || device >= 16) return INVALID_DEVICE;
    return *context = &primary[device], SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxCreate_v4(void **context, void *, unsigned, int device) {
    auto *made = new Context{device};
    current.push_back(made);
    return *context = made, SUCCESS;
}
API cuCtxCreate_v2(void **context, unsigned flags, int device) { return cuCtxCreate_v4(context, nullptr, flags, device); }
API cuCtxGetCurrent(void **context) { return *context = current.empty() ? nullptr : current.back(), SUCCESS; }
API cuCtxSetCurrent(void *context) {
    if (!current.empty()) current.pop_back();
    if (context) current.push_back(static_cast<Context *>(context));
    return SUCCESS;
}
API cuCtxPushCurrent_v2(void *context) { return current.push_back(static_cast<Context *>(context)), SUCCESS; }
API cuCtxPopCurrent_v2(void **context) {
    if (current.empty()) return INVALID_CONTEXT;
    if (context) *context = current.back();
    return current.pop_back(), SUCCESS;
}
API cuCtxAttach(void **context, unsigned) { return cuCtxGetCurrent(context), current.empty() ? INVALID_CONTEXT : SUCCESS; }
API cuCtxDetach(void *) { return current.empty() ? INVALID_CONTEXT : (current.pop_back(), SUCCESS); }
API cuCtxDestroy_v2(void *) { return SUCCESS; }
API cuCtxEnablePeerAccess(void *, unsigned) { return SUCCESS; }
API cuCtxGetDevice(int *device) { return *device = device_of_context(), current.empty() ? INVALID_CONTEXT : SUCCESS; }
API cuCtxGetApiVersion(void *, unsigned *version) { return *version = setting("VERSION"), SUCCESS; }
API cuCtxSynchronize() {
    IN_CONTEXT;
    SAFE("cuCtxSynchronize");
    return drain_all();
}

/* --- memory ------------------------------------------------------------------------------------------------------------- */

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
    Result r = whole(p, i->second) ? SUCCESS : say(ILLEGAL_ADDRESS, "somebody wrote outside of a block of %zu bytes", i->second.size);
    free(reinterpret_cast<char *>(p) - BORDER);
    blocks.erase(i);
    return r ? sticky = r : SUCCESS;
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

/* --- streams and events ------------------------------------------------------------------------------------------------- */

API cuStreamCreate(void **stream, unsigned) {
    IN_CONTEXT;
    auto *made = new Stream;
    streams.insert(made);
    return *stream = made, SUCCESS;
}
API cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy_v2(void *stream) {
    LOCKED;
    Stream *s = stream_of(stream);
    if (s == &legacy || !there(s)) return INVALID_HANDLE;
    drain(s);
    streams.erase(s);
    delete s;
    return SUCCESS;
}
API cuStreamSynchronize(void *stream) {
    IN_CONTEXT;
    Stream *s = stream_of(stream);
    if (!there(s)) return INVALID_HANDLE;
    if (s->capture) return s->capture->invalid = true, say(CAPTURE_UNSUPPORTED, "cuStreamSynchronize of a stream that captures");
    if (s == &legacy) return drain_all();
    return drain(s);
}
API cuStreamQuery(void *stream) {
    IN_CONTEXT;
    Stream *s = stream_of(stream);
    if (s->capture) return s->capture->invalid = true, CAPTURE_UNSUPPORTED;
    return s->queue.empty() ? SUCCESS : NOT_READY;
}
API cuEventCreate(void **event, unsigned flags) {
    IN_CONTEXT;
    auto *made = new Event;
    made->timed = !(flags & 2);
    counts.events++;
    return *event = made, SUCCESS;
}
API cuEventDestroy_v2(void *event) {
    LOCKED;
    auto *e = static_cast<Event *>(event);
    if (e->stream && there(e->stream)) run_until(e->stream, e->position);
    counts.events--;
    delete e;
    return SUCCESS;
}
API cuEventRecord(void *event, void *stream) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    Stream *s = stream_of(stream);
    if (!there(s)) return INVALID_HANDLE;
    e->stream = s, e->capture = s->capture;
    if (s->capture) return e->position = s->capture->nodes.size(), SUCCESS;
    e->position = s->put + 1;
    return put(stream, [=] { return e->time = now(), SUCCESS; });
}
API cuEventSynchronize(void *event) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    if (e->capture) return CAPTURED_EVENT;
    return e->stream && there(e->stream) ? run_until(e->stream, e->position) : SUCCESS;
}
API cuEventQuery(void *event) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    if (e->capture) return CAPTURED_EVENT;
    return !e->stream || !there(e->stream) || e->stream->done >= e->position ? SUCCESS : NOT_READY;
}
API cuEventElapsedTime_v2(float *ms, void *begin, void *end) {
    IN_CONTEXT;
    auto *a = static_cast<Event *>(begin), *b = static_cast<Event *>(end);
    if (!a->timed || !b->timed || !a->stream || !b->stream) return INVALID_HANDLE;
    if (cuEventQuery(begin) || cuEventQuery(end)) return NOT_READY;
    return *ms = (b->time - a->time) * 1e3, SUCCESS;
}
API cuEventElapsedTime(float *ms, void *begin, void *end) { return cuEventElapsedTime_v2(ms, begin, end); }
API cuStreamWaitEvent(void *stream, void *event, unsigned) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    Stream *s = stream_of(stream), *other = e->stream;
    if (!other) return SUCCESS;
    if (e->capture) {
        if (e->capture->invalid || !capturing.count(e->capture.get())) return CAPTURE_INVALIDATED;
        if (s->capture && s->capture != e->capture) return CAPTURE_ISOLATION;
        if (s == &legacy) return CAPTURE_IMPLICIT;
        if (!s->capture) s->capture = e->capture, s->capture->open.insert(s);
        if (s == s->capture->origin) s->capture->open.erase(other);
        return SUCCESS;
    }
    if (s->capture) return s->capture->invalid = true, say(CAPTURE_ISOLATION, "a stream that captures waits for one that does not");
    const uint64_t position = e->position;
    return put(stream, [=] { return there(other) ? run_until(other, position) : SUCCESS; });
}

/* --- kernels ------------------------------------------------------------------------------------------------------------ */

API cuModuleLoadData(void **module, const void *image) {
    IN_CONTEXT;
    SAFE("cuModuleLoad");
    const unsigned char *e = static_cast<const unsigned char *>(image);
#if defined(__x86_64__)
    const int machine = 62;
#else
    const int machine = 183;
#endif
    if (memcmp(e, "\177ELF", 4) || e[18] != machine) return say(INVALID_IMAGE, "the image is no shared object made with cudacpu.h");
    /* A shared object ends with its section headers. */
    size_t n;
    unsigned short size, many;
    memcpy(&n, e + 40, 8), memcpy(&size, e + 58, 2), memcpy(&many, e + 60, 2);
    n += size_t(size) * many;
    const int file = memfd_create("cudacpu", 0);
    if (file < 0 || write(file, image, n) != ssize_t(n)) return OUT_OF_MEMORY;
    /* The loader takes a name that it knows for the same object, and numbers of files come again. */
    static int loads = 0;
    std::string path = "/proc/self/fd/";
    for (int i = ++loads % 1000; i; i /= 2) path += i % 2 ? "./" : ".//";
    path += std::to_string(file);
    void *object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!object) say(INVALID_IMAGE, "%s", dlerror());
    close(file);
    if (!object) return INVALID_IMAGE;
    counts.modules++;
    return *module = new Module{object, {}}, SUCCESS;
}
API cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void *) { return cuModuleLoadData(module, image); }
API cuModuleLoad(void **module, const char *name) {
    FILE *file = fopen(name, "rb");
    if (!file) return FILE_NOT_FOUND;
    std::string image;
    char part[65536];
    for (size_t n; (n = fread(part, 1, sizeof part, file));) image.append(part, n);
    fclose(file);
    return cuModuleLoadData(module, image.data());
}
API cuModuleUnload(void *module) { /* the object stays: what it kept for its fibers is still there when it is loaded again */
    LOCKED;
    drain_all();
    counts.modules--;
    delete static_cast<Module *>(module);
    return SUCCESS;
}
API cuModuleGetFunction(void **function, void *module, const char *name) {
    LOCKED;
    auto *m = static_cast<Module *>(module);
    auto &found = m->functions[name];
    if (!found) {
        void *kernel = dlsym(m->object, (std::string("cudacpu_") + name).c_str());
        if (!kernel) return NOT_FOUND;
        found.reset(new Function{reinterpret_cast<Kernel>(kernel), name, 0});
    }
    return *function = found.get(), SUCCESS;
}
API cuFuncSetBlockShape(void *, int, int, int) { return SUCCESS; }
API cuFuncSetCacheConfig(void *, int) { return SUCCESS; }
API cuFuncGetAttribute(int *value, int attribute, void *function) {
    const int known[] = {1024, 0, 0, 0, 32, 90, 90, 0, int(static_cast<Function *>(function)->shared)};
    if (attribute < 0 || attribute > 8) return INVALID_VALUE;
    return *value = known[attribute], SUCCESS;
}
API cuFuncSetAttribute(void *function, int attribute, int value) {
    if (attribute == 8) {
        if (value < 0 || size_t(value) > MOST_SHARED) return INVALID_VALUE;
        static_cast<Function *>(function)->shared = value;
    }
    return SUCCESS;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *, int block, size_t) {
    return block < 1 || block > 1024 ? INVALID_VALUE : (*n = 2048 / block < 32 ? 2048 / block : 32, SUCCESS);
}
API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                   void **pointers, void **extra) {
    IN_CONTEXT;
    auto *f = static_cast<Function *>(function);
    const uint64_t threads = uint64_t(bx) * by * bz;
    if (!gx || !gy || !gz || gx > 2147483647u || gy > 65535 || gz > 65535 || !threads || threads > 1024 || bz > 64)
        return say(INVALID_VALUE, "kernel %s: a grid of (%u,%u,%u) blocks of (%u,%u,%u) threads", f->name.c_str(), gx, gy, gz, bx, by, bz);
    if (shared > (f->shared ? f->shared : DEFAULT_SHARED)) return say(INVALID_VALUE, "kernel %s: %u bytes of shared memory", f->name.c_str(), shared);
    if (pointers) return say(NOT_SUPPORTED, "kernel %s: expected its parameters in one buffer", f->name.c_str());
    const char *buffer = nullptr;
    size_t n = 0;
    for (void **e = extra; e && *e; e += 2) {
        if (*e == reinterpret_cast<void *>(1)) buffer = static_cast<char *>(e[1]);
        if (*e == reinterpret_cast<void *>(2)) n = *static_cast<size_t *>(e[1]);
    }
    if (long left = setting("LOSE_AFTER"); left >= 0) {
        if (left == 0) return sticky = say(LAUNCH_FAILED, "kernel %s: the device is lost (LOSE_AFTER)", f->name.c_str());
        switches()["LOSE_AFTER"]--;
    }
    counts.launches++;
    if (stream_of(stream)->capture) counts.captured++;
    std::vector<char> parameters(buffer, buffer + n);
    return put(stream, [=] {
        char error[CUDACPU_ERROR_SIZE] = "";
        const CudacpuLaunch call{{gx, gy, gz}, {bx, by, bz}, shared, parameters.data(), n, known, error};
        if (f->kernel(&call)) return say(LAUNCH_FAILED, "kernel %s: %s", f->name.c_str(), error);
        return check_borders(("kernel " + f->name).c_str());
    });
}

/* --- graphs, by capture ------------------------------------------------------------------------------------------------- */

API cuStreamBeginCapture_v2(void *stream, int mode) {
    IN_CONTEXT;
    Stream *s = stream_of(stream);
    if (s == &legacy || s->capture) return CAPTURE_UNSUPPORTED;
    drain(s);
    s->capture = std::make_shared<Graph>();
    s->capture->origin = s, s->capture->mode = mode;
    capturing.insert(s->capture.get());
    captures += mode != 2;
    return SUCCESS;
}
/* What stand-ins of libraries put on a stream. */
API cuLaunchHostFunc(void *stream, void (*f)(void *), void *data) {
    IN_CONTEXT;
    return put(stream, [=] { return f(data), SUCCESS; });
}
API cuStreamIsCapturing(void *stream, int *status) {
    LOCKED;
    const Stream *s = stream_of(stream);
    return *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1, SUCCESS;
}
API cuStreamEndCapture(void *stream, void **graph) {
    LOCKED;
    *graph = nullptr;
    Stream *s = stream_of(stream);
    if (!s->capture || s->capture->origin != s) return CAPTURE_UNMATCHED;
    auto made = s->capture;
    capturing.erase(made.get());
    captures -= made->mode != 2;
    for (auto *other : streams)
        if (other->capture == made) other->capture.reset();
    if (sticky) return sticky;
    if (made->invalid) return CAPTURE_INVALIDATED;
    if (!made->open.empty()) return CAPTURE_UNJOINED;
    auto *g = new Graph;
    g->nodes = made->nodes;
    return *graph = g, SUCCESS;
}
API cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long) {
    IN_CONTEXT;
    SAFE("cuGraphInstantiate");
    return *executable = new Graph(*static_cast<Graph *>(graph)), SUCCESS;
}
API cuGraphUpload(void *, void *) { return SUCCESS; }
API cuGraphLaunch(void *executable, void *stream) {
    IN_CONTEXT;
    counts.graph_launches++;
    auto nodes = static_cast<Graph *>(executable)->nodes;
    return put(stream, [=] {
        for (auto &node : nodes)
            if (Result r = node()) return r;
        return SUCCESS;
    });
}
API cuGraphGetNodes(void *graph, void *, size_t *n) { return *n = static_cast<Graph *>(graph)->nodes.size(), SUCCESS; }
API cuGraphDestroy(void *graph) { return delete static_cast<Graph *>(graph), SUCCESS; }
API cuGraphExecDestroy(void *executable) {
    LOCKED;
    drain_all();
    return delete static_cast<Graph *>(executable), SUCCESS;
}

/* --- for tests ---------------------------------------------------------------------------------------------------------- */

/* launches, captured launches, launches of graphs, live blocks, their bytes, streams, events, modules, copies */
API fakecuda_counts(long *out) {
    LOCKED;
    counts.live = blocks.size(), counts.streams = streams.size(), counts.bytes = 0;
    for (auto &b : blocks) counts.bytes += b.second.size;
    memcpy(out, &counts, sizeof counts);
    return SUCCESS;
}
API fakecuda_set(const char *name, long value) {
    LOCKED;
    if (!switches().count(name)) return INVALID_VALUE;
    return switches()[name] = value, SUCCESS;
}
/* As after a new start of the process: no error, the switches as the environment has them not. */
API fakecuda_reset() {
    LOCKED;
    sticky = SUCCESS;
    last.clear();
    switches() = {{"DEVICES", 1}, {"VERSION", 13000}, {"MEMORY", 4L << 30}, {"LAZY", 0}, {"LOSE_AFTER", -1}};
    return SUCCESS;
}
extern "C" __attribute__((visibility("default"))) const char *fakecuda_last_error() { return last.c_str(); }
