/* Between the emulated driver and a kernel that cudacpu.h compiled: `int cudacpu_NAME(const CudacpuLaunch *)`, 0 for success. */
#pragma once
#include <stddef.h>

enum { CUDACPU_ERROR = 256, CUDACPU_STACK = 256 << 10 };

struct CudacpuLaunch {
    unsigned grid[3], block[3];
    size_t shared;              /* bytes of dynamic shared memory */
    const char *parameters;     /* packed as cuLaunchKernel's buffer is */
    size_t size;                /* bytes of parameters */
    int (*known)(const void *); /* whether an address lies in memory of the device, or just past it */
    char *(*take_stack)(void);  /* CUDACPU_STACK bytes for a fiber, the lowest address; NULL: no memory */
    void (*give_stack)(char *);
    char *error; /* what went wrong, a line of at most CUDACPU_ERROR bytes */
};
