// The file mode mask of the process, for as long as something is made that must never have been open to others.
#pragma once

#include <sys/stat.h>

namespace gmgate {

/// Puts a mask in place and the former one back. The mask is the whole process's: hold it for one call.
class Umask {
public:
    explicit Umask(mode_t mask) : before_(::umask(mask)) {}
    ~Umask() { ::umask(before_); }
    Umask(const Umask&) = delete;
    Umask& operator=(const Umask&) = delete;

private:
    mode_t before_;
};

}  // namespace gmgate
