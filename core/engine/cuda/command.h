/* What a plan of the CUDA engine runs: commands put on a stream one after the other. A command gives a CUresult, 0 for success. */
#ifndef COGKIT_COMMAND_H
#define COGKIT_COMMAND_H
#include <stddef.h>
#include <stdint.h>

typedef struct cg_command cg_command;
struct cg_command {
    int (*run)(const cg_command *command, void *stream);
    void *state;
};

/* The functions of the driver that are used, by the CUDA 12/13 interface; found at run time, so that nothing of NVIDIA's is
 * needed to build. A CUdeviceptr is a 64-bit number, handles are pointers. */
typedef uint64_t cg_deviceptr;
typedef int (*cg_launch_t)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
typedef int (*cg_handle_t)(void **, const void *);
typedef int (*cg_function_t)(void **, void *, const char *);
typedef int (*cg_attribute_t)(void *, int, int);
typedef int (*cg_get_attribute_t)(int *, int, void *);
typedef int (*cg_memset_t)(cg_deviceptr, unsigned, size_t, void *);
typedef int (*cg_copy_t)(cg_deviceptr, cg_deviceptr, size_t, void *);
typedef int (*cg_begin_t)(void *, int);
typedef int (*cg_end_t)(void *, void **);
typedef int (*cg_instantiate_t)(void **, void *, unsigned long long);
typedef int (*cg_replay_t)(void *, void *);
typedef int (*cg_destroy_t)(void *);
typedef int (*cg_text_t)(int, const char **);
typedef int (*cg_count_t)(int *);

/* One kernel launch with its packed parameters. */
typedef struct cg_launch {
    cg_command command;
    void *function;
    unsigned grid[3], block[3], shared;
    size_t size;
    char *parameters;
} cg_launch;

typedef struct cg_transfer { /* a fill with 32-bit words, or a copy on the device */
    cg_command command;
    cg_deviceptr to, from;
    size_t size;
    unsigned value;
} cg_transfer;
#endif
