// The seal itself: AES-256-GCM under a key derived from the cluster's secret. Values only; runs in gmgate-xfrmd.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "xfrm/engine/protocol.h"
#include "xfrm/netlink/kernel.h"
#include "xfrm/sealing.h"

namespace gmgate::xfrm {

/// Holds a key for each line of the secret: the first one seals, all of them open, so that a secret can be changed node
/// by node.
class Sealer {
public:
    /// `text`: lines "KEY-ID:HEX", key ids 1 to 255, at least 32 octets each, `#` begins a comment. `cluster`: its
    /// name; two clusters with one secret do not open each other's seals. Reaction::reject with the line that is wrong.
    static Result<Sealer> from_text(std::string_view cluster, std::string_view text);

    /// Reaction::internal when libcrypto fails.
    Result<gm_sealed> seal(const gm_set& set, const RecordDigest& record, std::uint64_t epoch,
                           const KeyedSet& keyed) const;
    /// Reaction::refused, EPERM: altered, another cluster's, another record's or set's, of an unknown key.
    Result<KeyedSet> open(const gm_set& set, const RecordDigest& record, const gm_sealed& sealed) const;

    /// See Sealing::dialog_key().
    SipHashKey dialog_key() const;

    /// The numbers to go on with in `epoch`. Reaction::refused, EPERM: it is not later than the seal's, or so much
    /// later that the outbound numbers are used up.
    static Result<StartingSequences> go_on(const gm_sealed& sealed, std::uint64_t epoch);

private:
    struct Key {
        std::uint8_t id = 0;
        Secret<32> secret;
        Secret<16> dialogs;  ///< derived beside it
    };
    std::string cluster_;
    std::vector<Key> keys_;
};

/// The worker's: the file named by $GMGATE_CLUSTER_SECRET for the cluster $GMGATE_CLUSTER. Null without them.
Result<std::unique_ptr<Sealer>> sealer_of_environment();

}  // namespace gmgate::xfrm
