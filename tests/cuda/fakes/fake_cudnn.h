/* What the two halves of the stand-in for libcudnn share. */
#ifndef COGKIT_FAKE_CUDNN_H
#define COGKIT_FAKE_CUDNN_H
#include "cudnn_rnn_api.h"

#include "fake.h"

#include <string>

namespace fake {

struct Handle {
    void *stream = nullptr;
};

inline std::string &last_error() {
    thread_local std::string text;
    return text;
}

inline int error(const char *what, int status = CG_CUDNN_STATUS_BAD_PARAM) {
    last_error() = what;
    return status;
}

inline bool type_of(int type, Type &t) {
    switch (type) {
    case CG_CUDNN_DATA_FLOAT: t = F4; return true;
    case CG_CUDNN_DATA_DOUBLE: t = F8; return true;
    case CG_CUDNN_DATA_HALF: t = F2; return true;
    case CG_CUDNN_DATA_BFLOAT16: t = B2; return true;
    }
    return false;
}

}  // namespace fake
#endif
