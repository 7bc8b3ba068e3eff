#include "xfrm/record_digest.h"

#include <openssl/evp.h>

namespace gmgate::xfrm {

RecordDigest digest_of_record(std::string_view octets) {
    RecordDigest digest{};
    unsigned size = 0;
    EVP_Digest(octets.data(), octets.size(), digest.data(), &size, EVP_sha256(), nullptr);
    return digest;
}

}  // namespace gmgate::xfrm
