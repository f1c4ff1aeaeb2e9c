/* Modules and launches of the emulated device: what cudacpu.h compiled, run with the errors that a GPU would give. */
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fakecuda.h"

namespace {
/* Stacks for fibers, below each a page that nobody may touch. */
std::vector<char *> stacks;
char *take_stack() {
    if (stacks.empty()) {
        void *p = mmap(nullptr, CUDACPU_STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return nullptr;
        mprotect(p, 4096, PROT_NONE);
        stacks.push_back(static_cast<char *>(p) + 4096);
    }
    char *found = stacks.back();
    return stacks.pop_back(), found;
}
void give_stack(char *stack) { stacks.push_back(stack); }

/* A kernel that touches what it may not is an error of the launch, not the end of the process. */
sigjmp_buf outside;
void *volatile touched;
void caught(int, siginfo_t *info, void *) {
    touched = info->si_addr;
    siglongjmp(outside, 1);
}
bool survives(Kernel kernel, const CudacpuLaunch *call, volatile int *result) {
    if (sanitized()) return *result = kernel(call), true;
    static char room[64 << 10]; /* fibers have no room for a handler after an overflow */
    stack_t own{}, old;
    own.ss_sp = room, own.ss_size = sizeof room;
    sigaltstack(&own, &old);
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction action {}, before[3];
    action.sa_sigaction = caught, action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 3; i++) sigaction(signals[i], &action, &before[i]);
    const bool fine = sigsetjmp(outside, 0) == 0;
    if (fine) *result = kernel(call);
    for (int i = 0; i < 3; i++) sigaction(signals[i], &before[i], nullptr);
    sigaltstack(&old, nullptr);
    return fine;
}
Result execute(const Function *f, CudacpuLaunch call) {
    char error[CUDACPU_ERROR] = "";
    if (setting("LOSE_AFTER") == 0) return say(LAUNCH_FAILED, "kernel %s: the device is lost (LOSE_AFTER)", f->name.c_str());
    if (setting("LOSE_AFTER") > 0) switches["LOSE_AFTER"]--;
    call.known = known, call.take_stack = take_stack, call.give_stack = give_stack, call.error = error;
    volatile int result = 0;
    if (!survives(f->kernel, &call, &result)) return say(ILLEGAL_ADDRESS, "kernel %s: touched %p", f->name.c_str(), touched);
    if (result) return say(LAUNCH_FAILED, "kernel %s: %s", f->name.c_str(), error);
    return check_borders(("kernel " + f->name).c_str());
}
}  // namespace

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
    for (int i = ++loads; i; i /= 2) path += i % 2 ? "./" : ".//";
    path += std::to_string(file);
    void *object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!object) say(INVALID_IMAGE, "%s", dlerror());
    if (!sanitized()) close(file); /* else it reads the names of lines there */
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
    counts.launches++;
    if (stream_of(stream)->capture) counts.captured++;
    std::vector<char> parameters(buffer, buffer + n);
    return put(stream, [=] {
        CudacpuLaunch call{};
        const unsigned g[3] = {gx, gy, gz}, b[3] = {bx, by, bz};
        memcpy(call.grid, g, sizeof g), memcpy(call.block, b, sizeof b);
        call.shared = shared, call.parameters = parameters.data(), call.size = parameters.size();
        return execute(f, call);
    });
}
