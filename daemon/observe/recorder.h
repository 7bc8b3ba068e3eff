// The flight recorder: the messages of every registration and call of every phone, until it has succeeded, so that an
// operator sees a failure that has happened already, which nobody had switched a trace on for.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/siphash.h"
#include "base/types.h"
#include "daemon/config/observation.h"
#include "daemon/observe/message_trace.h"
#include "daemon/observe/octet_store.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

struct RecorderNumbers {
    std::uint64_t kept = 0;                ///< messages
    std::uint64_t succeeded = 0;           ///< registrations and calls that were forgotten because they came off
    std::uint64_t gave_way_source = 0;     ///< … for another one of their source, which was at its limit
    std::uint64_t gave_way_in_all = 0;     ///< … because the limit in all was reached
    std::uint64_t messages_left_out = 0;   ///< of one that alone is at its limit
    std::size_t attempts = 0, octets = 0;  ///< what is kept now
};

/// A registration or call that failed, or that nobody has ended for some seconds.
struct RecordedFailure {
    std::chrono::system_clock::time_point time;  ///< of its last message
    bool is_call = false;
    int status = 0;  ///< of its final answer, 0: there was none
    std::string call_id;
    std::string who;  ///< private identity, else the From URI
    std::size_t messages = 0;
};

/// An attempt is what one Call-ID has of REGISTER or INVITE, on all legs, and its messages lie in blocks of one store.
/// It is forgotten with the 2xx that goes to whoever began it. The message costs a look for Call-ID and CSeq, a look
/// into a hash table and a copy; nothing is parsed before somebody asks. Secrets are blotted out before they are
/// stored, as in MessageTrace.
class FlightRecorder {
public:
    /// Whose flow it is; asked once for each flow of an attempt.
    using WhoseFlow = std::function<MessageTrace::Context(bool outward, const sip::Flow& flow)>;

    FlightRecorder(const Clock& clock, RecorderLimits limits, WhoseFlow whose);

    void see(bool outward, const sip::Flow& flow, std::string_view bytes) {
        if (limit_blocks_ != 0) keep(outward, flow, bytes);
    }

    /// All that is kept of it, oldest first: by the identity that it registers, by its SAs or TLS connection.
    std::vector<TracedMessage> of(const Impi& impi) const;
    /// Of one Call-ID; empty: nothing is kept.
    std::vector<TracedMessage> of_call(std::string_view call_id) const;
    /// The last ones first. What has no final answer counts after kPatience without a message.
    std::vector<RecordedFailure> failures(std::size_t most) const;
    RecorderNumbers numbers() const;

    static constexpr std::chrono::seconds kPatience{10};

private:
    struct Outline;
    struct Source;
    struct Leg {
        sip::Flow flow;
        bool outward = false;
        MessageTrace::Context who;
    };
    struct Attempt {
        std::uint64_t key = 0;
        bool is_call = false, failed = false, from_core = false;
        std::uint32_t cseq = 0;
        int status = 0;
        std::int64_t last = 0;  ///< microseconds since 1970 of its last message
        std::size_t messages = 0;
        OctetStore::Chain octets;
        std::vector<Leg> legs;  ///< those behind `leg_count` keep their memory for the next attempt
        std::size_t leg_count = 0;
        Address source;
        std::list<Attempt*>::iterator place;  ///< in its source
    };
    struct Source {
        Address address;
        std::size_t blocks = 0;
        std::list<Attempt*> attempts;        ///< oldest first
        std::list<Source*>::iterator place;  ///< among those that have as many blocks
    };
    struct Head {  ///< before each message in the store
        std::int64_t microseconds;
        std::uint32_t size, leg;
    };
    using Attempts = std::unordered_map<std::uint64_t, Attempt>;

    static Outline outline_of(std::string_view bytes);
    void keep(bool outward, const sip::Flow& flow, std::string_view bytes);
    Attempt* open(std::uint64_t key, const Outline& outline, const sip::Flow& flow);
    std::optional<std::size_t> leg_of(Attempt& attempt, bool outward, bool is_request, const sip::Flow& flow);
    void add(Attempt& attempt, std::size_t leg, std::string_view bytes);
    bool make_room(Attempt& attempt, std::size_t blocks);
    void judge(Attempt& attempt, const Outline& outline, bool to_beginner);
    void forget(Attempt& attempt);
    void clear(Attempt& attempt);
    Source& source_of(const Address& address);
    void move_to(Attempt& attempt, const Address& address);
    void charge(Source& source, std::size_t blocks, bool is_more);
    void drop_if_empty(Source& source);
    std::vector<TracedMessage> messages_of(const Attempt& attempt) const;
    std::string user_of(const Attempt& attempt) const;

    const Clock& clock_;
    std::size_t limit_blocks_, source_blocks_;
    WhoseFlow whose_;
    SipHashKey hash_key_;
    OctetStore store_;
    Attempts attempts_;
    std::vector<Attempts::node_type> spare_;
    std::unordered_map<Address, Source> sources_;
    std::vector<std::list<Source*>> by_blocks_;  ///< sources by how much they have
    RecorderNumbers numbers_;
};

}  // namespace gmgate::daemon
