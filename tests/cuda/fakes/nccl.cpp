/* A stand-in for libnccl: the functions that core/engine/cuda/nccl.pyx uses, on the fake driver. Ranks are processes of this machine; they meet
 * in shared memory, whose name is the unique id, and go through a collective piece by piece. Sums are in the order of the ranks. A collective that
 * differs between ranks, or a rank that does not come within FAKE_NCCL_TIMEOUT seconds (20), is an error that stays. */
#include "nccl_api.h"

#include "fake.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>

namespace {

const size_t PIECE = 1 << 16; /* bytes of a rank that are there at a time */
const int MOST = 16;          /* ranks */

thread_local std::string last;

struct What {
    int kind, type, operation, padding;
    uint64_t count;
};

struct Shared {
    std::atomic<int> arrived, generation, members;
    What what[MOST];
    char data[MOST][PIECE];
};

struct Communicator {
    Shared *shared;
    int rank, size;
    std::string name;
    std::atomic<int> failure;
};

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

bool fail(Communicator *c, int status, const char *what) {
    if (!c->failure) fake::complain("NCCL", what, status);
    c->failure = status;
    last = what;
    return false;
}

/* Waits for all ranks. */
bool meet(Communicator *c) {
    if (c->failure) return false;
    Shared &s = *c->shared;
    const char *given = getenv("FAKE_NCCL_TIMEOUT");
    double end = now() + (given ? atof(given) : 20);
    int turn = s.generation;
    if (++s.arrived == c->size) {
        s.arrived = 0;
        s.generation++;
        return true;
    }
    while (s.generation == turn) {
        if (now() > end) return fail(c, CG_ncclRemoteError, "a rank did not come");
        usleep(50);
    }
    return true;
}

size_t size_of(int type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return sizes[type];
}

bool is_float(int type) { return type >= CG_ncclFloat16; }
fake::Type float_type(int type) {
    return type == CG_ncclFloat16 ? fake::F2 : type == CG_ncclFloat32 ? fake::F4 : type == CG_ncclFloat64 ? fake::F8 : fake::B2;
}

template <class T> T fold(int operation, T a, T b) {
    switch (operation) {
    case CG_ncclProd: return a * b;
    case CG_ncclMax: return a > b ? a : b;
    case CG_ncclMin: return a < b ? a : b;
    }
    return a + b;
}

template <class T> void reduce_integers(Shared &s, int size, int operation, size_t n, void *to) {
    for (size_t i = 0; i < n; i++) {
        T v = reinterpret_cast<T *>(s.data[0])[i];
        for (int r = 1; r < size; r++) v = fold<T>(operation, v, reinterpret_cast<T *>(s.data[r])[i]);
        static_cast<T *>(to)[i] = operation == CG_ncclAvg ? v / T(size) : v;
    }
}

void reduce(Shared &s, int size, int type, int operation, size_t n, void *to) {
    if (!is_float(type)) {
        switch (type) {
        case CG_ncclInt8: return reduce_integers<int8_t>(s, size, operation, n, to);
        case CG_ncclUint8: return reduce_integers<uint8_t>(s, size, operation, n, to);
        case CG_ncclInt32: return reduce_integers<int32_t>(s, size, operation, n, to);
        case CG_ncclUint32: return reduce_integers<uint32_t>(s, size, operation, n, to);
        case CG_ncclInt64: return reduce_integers<int64_t>(s, size, operation, n, to);
        }
        return reduce_integers<uint64_t>(s, size, operation, n, to);
    }
    fake::Type t = float_type(type);
    for (size_t i = 0; i < n; i++) {
        double v = fake::get(t, s.data[0], i);
        for (int r = 1; r < size; r++) v = fold(operation, v, fake::get(t, s.data[r], i));
        fake::put(t, to, i, operation == CG_ncclAvg ? v / size : v);
    }
}

enum Kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };

/* Brings `count` elements of every rank together, piece by piece; take(first, n) uses those that lie in shared memory. */
template <class F> bool pieces(Communicator *c, const void *from, size_t count, size_t item, F take) {
    for (size_t first = 0; first < count; first += PIECE / item) {
        size_t n = count - first < PIECE / item ? count - first : PIECE / item;
        if (from) memcpy(c->shared->data[c->rank], static_cast<const char *>(from) + first * item, n * item);
        if (!meet(c)) return false;
        take(first, n);
        if (!meet(c)) return false;
    }
    return true;
}

void collect(Communicator *c, What what, const void *from, void *to) {
    Shared &s = *c->shared;
    s.what[c->rank] = what;
    if (!meet(c)) return;
    for (int r = 0; r < c->size; r++)
        if (memcmp(&s.what[r], &what, sizeof what)) fail(c, CG_ncclInvalidUsage, "ranks do not run the same collective");
    if (c->failure) return;
    size_t item = size_of(what.type);
    char *out = static_cast<char *>(to);
    if (what.kind == ALL_REDUCE)
        pieces(c, from, what.count, item, [&](size_t first, size_t n) { reduce(s, c->size, what.type, what.operation, n, out + first * item); });
    else if (what.kind == REDUCE_SCATTER)
        for (int owner = 0; owner < c->size; owner++)
            pieces(c, static_cast<const char *>(from) + owner * what.count * item, what.count, item, [&](size_t first, size_t n) {
                if (owner == c->rank) reduce(s, c->size, what.type, what.operation, n, out + first * item);
            });
    else if (what.kind == ALL_GATHER)
        pieces(c, from, what.count, item, [&](size_t first, size_t n) {
            for (int r = 0; r < c->size; r++) memcpy(out + (r * what.count + first) * item, s.data[r], n * item);
        });
    else
        pieces(c, c->rank == what.operation ? from : nullptr, what.count, item,
               [&](size_t first, size_t n) { memcpy(out + first * item, s.data[what.operation], n * item); });
}

int start(Kind kind, const void *from, void *to, size_t count, int type, int operation, void *communicator, void *stream) {
    Communicator *c = static_cast<Communicator *>(communicator);
    if (c->failure) return c->failure;
    if (type < 0 || type > CG_ncclBfloat16 || (kind == BROADCAST ? operation >= c->size : operation > CG_ncclAvg) || operation < 0) {
        last = "an unknown type or operation";
        return CG_ncclInvalidArgument;
    }
    size_t bytes = count * size_of(type), all = bytes * c->size;
    if ((!(kind == BROADCAST && c->rank != operation) && !fake::on_device(from, kind == REDUCE_SCATTER ? all : bytes)) ||
        !fake::on_device(to, kind == ALL_GATHER ? all : bytes)) {
        last = "memory outside the device's";
        return CG_ncclInvalidArgument;
    }
    What what = {kind, type, operation, 0, count};
    return fake::enqueue(stream, [=] { collect(c, what, from, to); }) ? 1 : 0;
}

int leave(Communicator *c) {
    if (--c->shared->members == 0) shm_unlink(c->name.c_str());
    munmap(c->shared, sizeof(Shared));
    c->shared = nullptr;
    c->failure = CG_ncclInvalidUsage; /* kept: a graph may hold it */
    return 0;
}

}  // namespace

FAKE int ncclGetVersion(int *version) {
    const char *given = getenv("FAKE_NCCL_VERSION");
    *version = given ? atoi(given) : 22809;
    return 0;
}
FAKE const char *ncclGetErrorString(int status) {
    static const char *const texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument",
                                        "invalid usage", "remote process exited or there was a network error"};
    return status >= 0 && status < 7 ? texts[status] : "unknown result code";
}
FAKE const char *ncclGetLastError(void *) { return last.c_str(); }
FAKE int ncclGetUniqueId(cg_nccl_id *id) {
    static int made;
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "/cogkit-fake-nccl-%d-%d-%ld", getpid(), made++, static_cast<long>(now() * 1e6));
    return 0;
}
FAKE int ncclCommInitRank(void **communicator, int size, cg_nccl_id id, int rank) {
    if (size > MOST || rank < 0 || rank >= size) return CG_ncclInvalidArgument;
    int file = shm_open(id.bytes, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, sizeof(Shared))) return CG_ncclSystemError;
    void *memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return CG_ncclSystemError;
    Communicator *c = new Communicator{static_cast<Shared *>(memory), rank, size, id.bytes, {0}};
    c->shared->members++;
    if (!meet(c)) {
        int status = c->failure;
        leave(c);
        return status;
    }
    *communicator = c;
    return 0;
}
FAKE int ncclCommDestroy(void *communicator) { return leave(static_cast<Communicator *>(communicator)); }
FAKE int ncclCommAbort(void *communicator) { return leave(static_cast<Communicator *>(communicator)); }
FAKE int ncclCommGetAsyncError(void *communicator, int *status) {
    *status = static_cast<Communicator *>(communicator)->failure;
    return 0;
}
FAKE int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, void *communicator, void *stream) {
    return start(ALL_REDUCE, from, to, count, type, operation, communicator, stream);
}
FAKE int ncclReduceScatter(const void *from, void *to, size_t count, int type, int operation, void *communicator, void *stream) {
    return start(REDUCE_SCATTER, from, to, count, type, operation, communicator, stream);
}
FAKE int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, void *communicator, void *stream) {
    return start(BROADCAST, from, to, count, type, root, communicator, stream);
}
FAKE int ncclAllGather(const void *from, void *to, size_t count, int type, void *communicator, void *stream) {
    return start(ALL_GATHER, from, to, count, type, 0, communicator, stream);
}
