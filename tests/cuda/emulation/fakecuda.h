/* What the parts of the emulated driver share: results, objects behind handles, its state. fakecuda.cpp says what it is. */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "launch.h"

#define API extern "C" __attribute__((visibility("default"))) int
#define LOCKED std::lock_guard<std::recursive_mutex> held(lock)
/* Calls that want a context: no context, or one that is lost. */
#define IN_CONTEXT                                                                                                              \
    LOCKED;                                                                                                                     \
    if (current.empty()) return INVALID_CONTEXT;                                                                                \
    if (sticky) return sticky
#define SAFE(what)                                                                                                              \
    if (Result r = unsafe(what)) return r

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

const size_t DEFAULT_SHARED = 48 << 10, MOST_SHARED = 227 << 10;

inline std::recursive_mutex lock;
inline int sticky; /* the error that ended the contexts, if any */
inline std::string last;
inline thread_local std::vector<Context *> current;
inline thread_local int captures; /* that this thread began, in a mode that forbids unsafe calls */
inline std::map<Address, Block> blocks;
inline std::map<Address, size_t> pinned;
inline Stream legacy;
inline std::set<Stream *> streams;
inline std::set<Graph *> capturing;
inline struct Counts {
    long launches, captured, graph_launches, live, bytes, streams, events, modules, transfers;
} counts;
inline std::map<std::string, long> switches;
inline long setting(const char *name) { return switches[name]; }
inline int device_of_context() { return current.empty() ? 0 : current.back()->device; }

/* Whether kernels carry the address sanitizer (CUDACPU_SANITIZE=1): it says where a kernel wrote, and wants to see what goes wrong itself. */
extern "C" void __asan_poison_memory_region(const volatile void *, size_t) __attribute__((weak));
extern "C" void __asan_unpoison_memory_region(const volatile void *, size_t) __attribute__((weak));
inline bool sanitized() {
    static const char *wish = getenv("CUDACPU_SANITIZE");
    return __asan_poison_memory_region && wish && *wish == '1';
}

template <class... A> Result say(Result result, const char *format, A... a) {
    char line[512];
    snprintf(line, sizeof line, format, a...);
    last = line;
    fprintf(stderr, "fakecuda: %s\n", line);
    return result;
}

Stream *stream_of(void *handle);
bool there(Stream *stream);
Result run_until(Stream *stream, uint64_t position); /* runs its work up to a position */
Result drain(Stream *stream);
Result drain_all();
Result put(void *handle, Work work); /* into the graph that the stream captures, at the end of its queue, or run at once */
Result unsafe(const char *what);     /* an error where a capture forbids the call */
int known(const void *address);      /* in memory of the device, or just past it */
Result check_borders(const char *who);
template <class M> typename M::iterator block_of(M &in, Address p) {
    auto i = in.upper_bound(p);
    return i == in.begin() ? in.end() : --i;
}
