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
 *   FAKECUDA_LOSE_AFTER  after so many more kernels, those of graphs too, every call gives error 719, as when a GPU is lost
 */
#include "fakecuda.h"

namespace {
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

bool initialized;
Context primary[16] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}};

void set_switches() {
    switches = {{"DEVICES", 1}, {"VERSION", 13000}, {"MEMORY", 4L << 30}, {"LAZY", 0}, {"LOSE_AFTER", -1}};
    for (auto &s : switches)
        if (const char *given = getenv(("FAKECUDA_" + s.first).c_str())) s.second = atol(given);
}
const bool begun = (set_switches(), true);
}  // namespace

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
    if (!switches.count(name)) return INVALID_VALUE;
    return switches[name] = value, SUCCESS;
}
/* As after a start of the process: no error, the switches as the environment has them. */
API fakecuda_reset() {
    LOCKED;
    sticky = SUCCESS;
    last.clear();
    set_switches();
    return SUCCESS;
}
extern "C" __attribute__((visibility("default"))) const char *fakecuda_last_error() { return last.c_str(); }
