/* Ops written in C++ for C.native_user_function; see cogkit_user.h. */
#include "cogkit_user.h"

namespace {

template <class T> void relu(const cogkit_array &x, cogkit_array &y) {
    const T *from = (const T *)x.data;
    T *__restrict__ to = (T *)y.data;
    const int64_t n = x.rows * x.size;
    for (int64_t i = 0; i < n; ++i) to[i] = from[i] > 0 ? from[i] : 0;
}

template <class T> void relu_back(const cogkit_array &x, const cogkit_array &dy, cogkit_array &dx) {
    const T *value = (const T *)x.data, *from = (const T *)dy.data;
    T *__restrict__ to = (T *)dx.data;
    const int64_t n = x.rows * x.size;
    for (int64_t i = 0; i < n; ++i) to[i] = value[i] > 0 ? from[i] : 0;
}

/* y = x w, or its gradients: w of shape (k, n) without rows, x of shape (k). */
template <class T> void times(const cogkit_array &w, const cogkit_array &x, cogkit_array &y) {
    const T *a = (const T *)x.data, *b = (const T *)w.data;
    T *c = (T *)y.data;
    for (int64_t r = 0; r < x.rows; ++r)
        for (int64_t j = 0; j < y.size; ++j) {
            T sum = 0;
            for (int64_t i = 0; i < x.size; ++i) sum += a[r * x.size + i] * b[i * y.size + j];
            c[r * y.size + j] = sum;
        }
}

template <class T> void times_back(const cogkit_array &w, const cogkit_array &x, const cogkit_array &dy, cogkit_array &dw, cogkit_array &dx) {
    const T *a = (const T *)x.data, *b = (const T *)w.data, *c = (const T *)dy.data;
    const int64_t k = x.size, n = dy.size;
    for (int64_t i = 0; dw.data && i < k * n; ++i) ((T *)dw.data)[i] = 0;
    for (int64_t i = 0; dx.data && i < x.rows * k; ++i) ((T *)dx.data)[i] = 0;
    for (int64_t r = 0; r < x.rows; ++r)
        for (int64_t i = 0; i < k; ++i)
            for (int64_t j = 0; j < n; ++j) {
                if (dw.data) ((T *)dw.data)[i * n + j] += a[r * k + i] * c[r * n + j];
                if (dx.data) ((T *)dx.data)[r * k + i] += b[i * n + j] * c[r * n + j];
            }
}

} // namespace

extern "C" {

int relu_forward(const cogkit_array *x, cogkit_array *y, const double *) {
    x[0].type == 8 ? relu<double>(x[0], y[0]) : relu<float>(x[0], y[0]);
    return 0;
}

int relu_backward(const cogkit_array *x, const cogkit_array *, const cogkit_array *dy, cogkit_array *dx, const double *) {
    x[0].type == 8 ? relu_back<double>(x[0], dy[0], dx[0]) : relu_back<float>(x[0], dy[0], dx[0]);
    return 0;
}

int times_forward(const cogkit_array *x, cogkit_array *y, const double *) {
    x[0].type == 8 ? times<double>(x[0], x[1], y[0]) : times<float>(x[0], x[1], y[0]);
    return 0;
}

int times_backward(const cogkit_array *x, const cogkit_array *, const cogkit_array *dy, cogkit_array *dx, const double *) {
    x[0].type == 8 ? times_back<double>(x[0], x[1], dy[0], dx[0], dx[1]) : times_back<float>(x[0], x[1], dy[0], dx[0], dx[1]);
    return 0;
}

/* y0 = settings[0] x, y1 = settings[1] x: two outputs, which may have gradients or not. */
int scales_forward(const cogkit_array *x, cogkit_array *y, const double *settings) {
    if (x[0].type != 4) return 7;
    for (int64_t i = 0; i < x[0].rows * x[0].size; ++i)
        for (int k = 0; k < 2; ++k) ((float *)y[k].data)[i] = (float)(settings[k] * ((const float *)x[0].data)[i]);
    return 0;
}

int scales_backward(const cogkit_array *x, const cogkit_array *, const cogkit_array *dy, cogkit_array *dx, const double *settings) {
    for (int64_t i = 0; i < x[0].rows * x[0].size; ++i) {
        double sum = 0;
        for (int k = 0; k < 2; ++k)
            if (dy[k].data) sum += settings[k] * ((const float *)dy[k].data)[i];
        ((float *)dx[0].data)[i] = (float)sum;
    }
    return 0;
}

int create_times(cogkit_native *made) {
    made->forward = times_forward;
    made->backward = times_backward;
    return 0;
}
}
