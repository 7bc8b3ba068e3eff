// A deleter for OpenSSL's objects: std::unique_ptr<BIO, Freer<BIO_free_all>>.
#pragma once

namespace gmgate::ktls {

/// Calls OpenSSL's own function; OpenSSL owns nothing of it afterwards.
template <auto Free>
struct Freer {
    template <class T>
    void operator()(T* object) const noexcept {
        Free(object);
    }
};

}  // namespace gmgate::ktls
