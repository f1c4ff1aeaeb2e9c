/* Numbers of one element type as another. */
#ifndef COGKIT_CASTING_H
#define COGKIT_CASTING_H

#include "support.h"

namespace cg {

/* 'f2', 'f4', 'f8', 'i1' or 'i2' to another of these. */
Kernel *make_cast(int64_t size, const std::string &from, const std::string &to);

} // namespace cg
#endif
