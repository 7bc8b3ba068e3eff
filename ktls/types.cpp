#include "ktls/types.h"

#include <unistd.h>

namespace gmgate::ktls {

std::string_view to_string(Version version) { return version == Version::tls12 ? "TLSv1.2" : "TLSv1.3"; }

std::string_view to_string(Cipher cipher) {
    switch (cipher) {
        case Cipher::aes_128_gcm:
            return "AES-128-GCM";
        case Cipher::aes_256_gcm:
            return "AES-256-GCM";
        case Cipher::chacha20_poly1305:
            return "CHACHA20-POLY1305";
    }
    return "?";
}

std::string_view to_string(KernelTls mode) {
    switch (mode) {
        case KernelTls::off:
            return "off";
        case KernelTls::preferred:
            return "preferred";
        case KernelTls::required:
            return "required";
    }
    return "?";
}

std::string_view to_string(HandshakeFailure failure) {
    switch (failure) {
        case HandshakeFailure::timed_out:
            return "timed-out";
        case HandshakeFailure::not_tls:
            return "not-tls";
        case HandshakeFailure::no_common_version:
            return "no-common-version";
        case HandshakeFailure::no_common_cipher:
            return "no-common-cipher";
        case HandshakeFailure::unknown_name:
            return "unknown-name";
        case HandshakeFailure::peer_alert:
            return "peer-alert";
        case HandshakeFailure::peer_closed:
            return "peer-closed";
        case HandshakeFailure::bad_message:
            return "bad-message";
        case HandshakeFailure::certificate:
            return "certificate";
        case HandshakeFailure::kernel:
            return "kernel";
        case HandshakeFailure::internal:
            return "internal";
    }
    return "?";
}

OwnedFd::~OwnedFd() {
    if (fd_ >= 0) ::close(fd_);
}

}  // namespace gmgate::ktls
