// One descriptor kept for the time when the process has no other: those who look after it are served even then.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include <asio/error.hpp>

namespace gmgate {

/// What an accept says then: of the process, or of the machine. Asio has a category of its own for what the system
/// says.
inline bool is_out_of_descriptors(const asio::error_code& error) {
    return error.category() == asio::error::get_system_category() &&
           (error.value() == EMFILE || error.value() == ENFILE);
}

/// take() before each accept, and accept_again() behind it.
class ReserveDescriptor {
public:
    ReserveDescriptor() { take(); }
    ReserveDescriptor(const ReserveDescriptor&) = delete;
    ReserveDescriptor& operator=(const ReserveDescriptor&) = delete;
    ~ReserveDescriptor() { give(); }

    /// Frees it for somebody; false when somebody has it already.
    bool give() {
        if (fd_ < 0) return false;
        ::close(fd_);
        fd_ = -1;
        return true;
    }
    /// Keeps one again, if there is one and it has none.
    void take() {
        if (fd_ < 0) fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    }

    /// When `error`, of an accept, says that there is no descriptor: once more, with this one. `acceptor` does not
    /// block.
    template <class Acceptor, class Socket>
    void accept_again(Acceptor& acceptor, Socket& peer, asio::error_code& error) {
        if (!is_out_of_descriptors(error) || !give()) return;
        acceptor.accept(peer, error);
        if (error) take();  // nobody came: the kernel wants a descriptor before it looks who waits
    }

private:
    int fd_ = -1;
};

}  // namespace gmgate
