/* Functions that C.native_user_function runs. They are called without Python's lock, from one thread, and may start threads of their own.
 *
 * forward: fills y[0 .. outputs) from x[0 .. inputs). backward: fills dx[0 .. inputs) from x, y and dy; dx[i].data is NULL where no
 * gradient is wanted, dy[j].data where none arrives. settings: the numbers among the attributes of the function, in order.
 * Both return 0, or a positive number of their own, which the error then names. Arrays do not overlap.
 */
#ifndef COGKIT_USER_H
#define COGKIT_USER_H
#include <stdint.h>

typedef struct cogkit_array {
    void *data;           /* contiguous, rows first */
    int64_t rows;         /* samples or steps; 1 where the value is the same for all samples */
    int64_t size;         /* elements of a row */
    const int64_t *shape; /* of a row: `rank` sizes */
    int32_t rank;
    int32_t type;         /* bytes of an element: 4 is float, 8 is double */
} cogkit_array;

typedef int (*cogkit_forward)(const cogkit_array *x, cogkit_array *y, const double *settings);
typedef int (*cogkit_backward)(const cogkit_array *x, const cogkit_array *y, const cogkit_array *dy, cogkit_array *dx,
                               const double *settings);

/* What a factory of a library fills in: `int create(cogkit_native *made)` returns 0. backward may stay NULL. */
typedef struct cogkit_native {
    cogkit_forward forward;
    cogkit_backward backward;
} cogkit_native;
#endif
