// A registration as the nodes of a cluster hand it on: the row of the store as octets, and each set's keys under seal.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "daemon/registrations/stored.h"
#include "xfrm/sealing.h"

namespace gmgate::daemon {

/// Its field in the shared store: private identity, instance and reg-id.
std::string record_field(const ContactKey& key);

/// The row without keys. Times are written by the wall clock: another machine's steady clock is another one.
std::string encode_row(const StoredRegistration& row, const Clock& clock);
/// What the seals cover of a row.
xfrm::RecordDigest digest_of(std::string_view row);

/// The record: the row, and one seal for each of its sets, in its order.
std::string encode_record(std::string_view row, const std::vector<xfrm::SealedKeys>& seals);

struct ClusterRecord {
    StoredRegistration row;
    xfrm::RecordDigest digest;
    std::vector<xfrm::SealedKeys> seals;  ///< one for each of row.sets
};
/// Reaction::reject for what is no record. The store is not trusted: only what a seal opens for was written by a node.
Result<ClusterRecord> decode_record(std::string_view octets, const Clock& clock);

}  // namespace gmgate::daemon
