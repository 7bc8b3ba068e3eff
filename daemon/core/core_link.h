// The way to the core: to which element a request goes (next_hops, resolver, health), over UDP, TCP or TLS, and what
// our Via towards it says.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/core/busy.h"
#include "daemon/core/connector.h"
#include "daemon/core/health.h"
#include "daemon/core/hop_history.h"
#include "daemon/core/next_hops.h"
#include "daemon/core/overload_control.h"
#include "daemon/core/resolver.h"
#include "daemon/rules/own_marks.h"
#include "sip/message/headers.h"
#include "sip/transaction/transactions.h"

namespace gmgate::daemon {

class CoreLink;

/// How the core reaches us in one address family.
struct CoreSide {
    Endpoint local;
    std::string via_host;  ///< host:port
    std::string
        uri_host;  ///< host:port for Path and Record-Route; with ;transport=tcp or tls when the core is spoken to so
};

/// Whose requests a connection to the core carries. What a stranger sends may make the core close it; that must cost
/// strangers only.
enum class Traffic : std::uint8_t {
    phones,     ///< of registered phones, of a phone that answers a challenge over its SAs, and our own
    strangers,  ///< of somebody who has proved nothing: REGISTER and emergency in clear, or over TLS that is not bound
};

/// What an overloaded core is spared.
enum class Importance : std::uint8_t {
    ordinary,  ///< begins something: held back as the core asks (RFC 7339, Retry-After)
    ongoing,   ///< belongs to a dialog, or ends or keeps something: goes out, but not from one busy element to the next
    urgent,    ///< an emergency: goes out whatever the core says, and may take the reserve of our tables
};

/// One request on its way to the core: tries one target after the other, each with a branch of its own (RFC 3263 §4.3,
/// RFC 3261 §16.6). Tells the core link which targets answered. Must not outlive it.
class CoreAttempts {
public:
    /// The request as it goes out over that transport from that side of ours, with a fresh branch each time it is
    /// called.
    using Build = std::function<std::string(sip::Transport, const CoreSide&)>;
    CoreAttempts(CoreLink& link, std::vector<Target> targets, Build build, Traffic traffic,
                 Importance importance = Importance::ordinary)
        : link_(&link),
          left_(std::move(targets)),
          build_(std::move(build)),
          traffic_(traffic),
          importance_(importance) {}

    /// Sends to the next target that can be sent to. Errors: Reaction::broken with the last reason when none is left;
    /// exhausted, a limit of ours, or every element that is left has asked to be spared.
    Task<Result<std::unique_ptr<sip::ClientTransaction>>> next();
    /// What came of the last try. True when another target may be tried: nothing came (time-out, broken connection), or
    /// 503, and there is another target, or the connection was an old one and the same target deserves a new one. A
    /// stranger's request whose connection ended is tried once more, on a connection that it shares with nobody.
    bool should_try_again(const Result<sip::OwnedMessage>& outcome);
    /// The element ended a connection that carried nothing but this request: it is the request that it does not like.
    bool is_disliked() const { return is_disliked_; }
    const std::optional<Target>& current() const { return current_; }  ///< of the last try
    /// The connection of the last try has ended after a provisional response: a new one to the same target, over which
    /// it can still be cancelled; nullopt when it takes none.
    Task<std::optional<sip::Flow>> other_way();

private:
    bool take_next(Error& last);
    bool must_spare(const Target& target) const;
    void remember(CoreTransport used, bool is_old, sip::ConnectionId connection);
    bool judge(const Result<sip::OwnedMessage>& outcome);
    bool try_alone();
    bool suspect(const Result<sip::OwnedMessage>& outcome);
    bool refused(const sip::Message& response);

    CoreLink* link_;
    std::vector<Target> left_;
    Build build_;
    Traffic traffic_;
    Importance importance_;
    std::optional<Target> current_;
    TimePoint sent_at_{};
    CoreTransport used_ = CoreTransport::udp;
    bool used_old_connection_ = false, is_invite_ = false, is_alone_ = false, is_disliked_ = false;
    bool was_refused_ = false;          ///< an element has said 503 to this request
    sip::ConnectionId own_connection_;  ///< 0: it is shared
};

class CoreLink {
public:
    CoreLink(const Core& core, sip::Transports& transports, sip::Transactions& transactions);
    /// Needed before the first request when the transport is tls.
    void use_tls(TlsConnector& tls) { connector_.use_tls(tls); }

    /// What tells our own tokens and loops from those of others.
    const OwnMarks& marks() const { return marks_; }
    /// The first of [core] listen: where nothing says which element of the core will see it.
    const CoreSide& side() const { return sides_.front(); }
    /// From which an element of that family is reached; side() when there is none.
    const CoreSide& side_for(Family family) const;
    /// From which the first of `targets` is reached.
    const CoreSide& side_towards(const Result<std::vector<Target>>& targets) const {
        return targets && !targets->empty() ? side_for(targets->front().endpoint.address.family()) : side();
    }
    /// At which a request of the core came.
    const CoreSide& side_of(const sip::Flow& flow) const { return side_for(flow.local.address.family()); }
    bool is_core_side(
        const sip::Flow& flow) const;  ///< received on the core-side socket or on a connection of ours to the core
    /// The door of a core-side flow: the element of the core, by its address. A datagram comes through our socket; of
    /// connections it may have several, opened from either side.
    static sip::Door door_of(const sip::Flow& flow);
    /// True for an address that we send requests to or that requests came from: only there may a response without
    /// transaction go.
    bool is_core_address(const Address& address) const;
    /// A request came from there, so its answers may go there.
    void note_request(const sip::Flow& came, const sip::Message& request);
    /// The configured addresses, also after a reload; those that are no next hop any more stay known.
    /// `resolved`: what names among them were looked up to.
    void note_next_hops(const std::vector<Target>& resolved = {});
    /// True for a place at which the core takes answers: it sends requests from there and asks for their answers there,
    /// or we send requests to it. What a phone writes into a Via opens no way to any other.
    bool takes_answers(sip::Transport transport, const Endpoint& at) const;

    /// Where requests outside of dialogs go: [core] next-hop, best first. Errors: Reaction::retry, no name could be
    /// resolved.
    Task<Result<std::vector<Target>>> next_hops();
    /// Emergency requests: [core] emergency-next-hop (C-83), else next_hops().
    Task<Result<std::vector<Target>>> emergency_next_hops();
    /// Where a request with `route_uri` on top of its Route goes. A phone's Route is believed only as far as it names
    /// an element that we know: a next hop, an address that requests came from, or a host of `service_route` (looked up
    /// only with follow-route).
    Task<Result<std::vector<Target>>> targets_for(std::string route_uri, std::vector<std::string> service_route);

    /// ACK to 2xx, late responses: outside transactions, to the first of `targets`; TCP for what is too long for a
    /// datagram.
    Task<Result<void>> send_stateless(CoreAttempts::Build build, std::vector<Target> targets, Traffic traffic);
    Task<Result<void>> send_stateless(std::string bytes, sip::Transport transport, Endpoint to);

    /// Looks names up and sends OPTIONS to every next hop, again and again; ends with the loop. Answers bring an
    /// element back, silence takes it out. Without pings only the names, so that it is known who may talk to us.
    Task<void> watch_next_hops();
    const Health& health() const { return health_; }
    const HopHistory& hops() const { return hops_; }

    /// One element that a configured next hop stands for at this moment.
    struct HopReport {
        std::string hop;               ///< as configured
        bool is_emergency = false;     ///< of emergency-next-hop
        std::optional<Target> target;  ///< nullopt: its name was not found, `reason` says why
        bool is_down = false, is_busy = false, is_disabled = false;
        std::string reason;
    };
    /// All of them, names looked up, in the order of the configuration.
    Task<std::vector<HopReport>> report();
    /// Takes an element, "ADDRESS:PORT" or a name of the configuration, out of use for what is new, until enable() or
    /// the end of the process; dialogs stay where they are. Errors: Reaction::reject, it is none of the next hops, or
    /// the last one.
    Task<Result<void>> disable(std::string hop);
    Result<void> enable(const std::string& hop);
    const Busy& busy() const { return busy_; }
    const OverloadControl& overload_control() const { return overload_control_; }
    /// How many requests were held back because the core asked for less.
    std::uint64_t held_back() const { return held_back_; }

private:
    friend class CoreAttempts;
    struct Way {
        sip::Flow flow;
        bool is_old = false;  ///< a connection that was open already
    };
    /// What an operator has taken out: left out, or kept where a dialog may have it.
    enum class Disabled { left_out, kept };
    Task<Result<std::vector<Target>>> resolve(std::vector<NextHop> hops, Disabled disabled = Disabled::left_out);
    Task<Result<std::vector<Target>>> targets_of(NextHop hop);
    /// Of one that is given by its address.
    Target target_at(const NextHop& hop) const;
    void leave_out_disabled(std::vector<Target>& targets, std::ptrdiff_t own) const;
    Task<Result<Way>> way_to(Endpoint to, CoreTransport transport, std::string tls_name = {},
                             Traffic traffic = Traffic::phones);
    /// The same over a connection that nobody else gets; while there are too many of them, over the strangers' one.
    Task<Result<Way>> way_alone(Endpoint to, CoreTransport transport, std::string tls_name);
    Task<void> ping(Target target);
    void judge_ping(const Target& target, TimePoint sent_at, const Result<sip::OwnedMessage>& response);
    Task<void> ask_about(Target target);  ///< one ping at a time because of a doubt
    void answered(const Target& target);
    /// How long an answer took: of the core's speed, for the operator.
    void took(const Target& target, TimePoint sent_at);
    void log_down(const Target& target, std::string_view why);
    void failed(const Target& target, std::string_view why);
    void silent(const Target& target, TimePoint since, std::string_view why);
    /// No answer to a request that may rightly stay without one (RFC 4320): an OPTIONS tells more, when pings are on.
    void doubt(const Target& target, TimePoint since, std::string_view why);
    void log_busy(const Target& target, std::string_view why);
    Target at(const Endpoint& endpoint, CoreTransport transport) const;
    void note_target(const Endpoint& endpoint, CoreTransport transport);
    void note_answers(sip::Transport transport, const Endpoint& at);

    const Core& core_;
    sip::Transports& transports_;
    sip::Transactions& transactions_;
    Clock clock_;
    OwnMarks marks_;
    std::vector<CoreSide> sides_;  ///< one for each family of [core] listen, the first one's first
    /// The live TCP or TLS connection to each element, by TLS name and by whose requests it carries.
    std::map<std::tuple<Endpoint, CoreTransport, std::string, Traffic>, sip::Flow> connections_;
    std::set<sip::ConnectionId> alone_;                            ///< of single requests; bounded
    std::set<Address> core_addresses_;                             ///< bounded; configured ones and those learnt
    std::set<std::pair<sip::Transport, Endpoint>> answer_places_;  ///< bounded; takes_answers()
    Connector connector_;
    Health health_;
    HopHistory hops_;
    Busy busy_;
    OverloadControl overload_control_;
    std::uint64_t held_back_ = 0;
    std::optional<asio::any_io_executor> pinging_on_;  ///< while watch_next_hops() runs
    std::set<Endpoint> doubted_;                       ///< a ping is under way because of a doubt
    std::unique_ptr<Resolver> resolver_;               ///< made when the first name is met
};

/// As the transport layer names it.
sip::Transport to_sip(CoreTransport transport);
/// The transport of a request of that size towards `wanted`: TCP for what does not fit a datagram (RFC 3261 §18.1.1).
CoreTransport transport_for(std::size_t octets, CoreTransport wanted);

}  // namespace gmgate::daemon
