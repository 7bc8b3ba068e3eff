// What a seal covers of the record in which it lies.
#pragma once

#include <string_view>

#include "xfrm/sealing.h"

namespace gmgate::xfrm {

/// SHA-256.
RecordDigest digest_of_record(std::string_view octets);

}  // namespace gmgate::xfrm
