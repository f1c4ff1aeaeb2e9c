#pragma once
#include <cerrno>
#include <cstdint>
#include <unistd.h>

// Reads [at, at + n) of a file to `to`; false with errno (0: the file ends before).
static inline bool cg_read_all(int fd, int64_t at, int64_t n, char *to) {
    while (n > 0) {
        const ssize_t got = pread(fd, to, (size_t)n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (got == 0) errno = 0;
            return false;
        }
        at += got;
        to += got;
        n -= got;
    }
    return true;
}
