/* What the emulated driver (fakecuda.cpp) asks of a kernel that cudacpu.h compiled: `int cudacpu_NAME(const CudacpuLaunch *)`, 0 for success. */
#pragma once
#include <stddef.h>

struct CudacpuLaunch {
    unsigned grid[3], block[3];
    size_t shared;                    /* bytes of dynamic shared memory */
    const char *parameters;           /* packed as cuLaunchKernel's buffer is */
    size_t size;                      /* bytes of parameters */
    int (*known)(const void *);       /* whether an address lies in memory of the device, or just past it */
    char *error;                      /* what went wrong, a line; 256 bytes */
};
enum { CUDACPU_ERROR_SIZE = 256 };
