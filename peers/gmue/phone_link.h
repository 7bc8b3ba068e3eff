// The phone's sockets and SA sets: which port sends what, which port receives what. TS 33.203 §7.1, requirements B-15
// and B-18.
//
// UDP goes out from port_uc to port_ps and comes in from port_pc on port_us, requests and responses alike; what arrives
// elsewhere is dropped and counted. TCP connections are opened from port_uc to port_ps and accepted from port_pc on
// port_us. With mechanism tls there is one TLS connection, opened by the phone from any port, and everything goes over
// it in both directions.
#pragma once

#include "../common/message_log.h"
#include "../common/nat_traversal.h"
#include "../common/sa_programmer.h"
#include "../common/sip_message.h"
#include "../common/transport.h"
#include "phone_config.h"

#include <functional>
#include <map>
#include <memory>
#include <set>

namespace gmgate::peers {

using SetId = std::uint32_t;
inline constexpr SetId kClear = 0;  ///< the unprotected port

/// The way a message takes.
struct Path {
    SetId set = kClear;
    bool tcp = false;
    bool tls = false;  ///< the TLS connection; tcp is set as well, the set is kClear
    [[nodiscard]] bool is_protected() const { return set != kClear || tls; }
};
inline constexpr Path kTlsPath{kClear, true, true};

struct Incoming {
    SipMessage message;
    Path path;
    std::uint64_t connection = 0;  ///< TCP only
    Endpoint local;
    Endpoint remote;
};

/// One security association set of the phone, from the offer to its removal.
struct SecuritySet {
    SetId id = kClear;
    SecEnd ue;
    SecEnd network;  ///< zero until chosen
    AlgPair pair;
    std::string client_text;               ///< Security-Client as sent
    std::vector<std::string> server_list;  ///< Security-Server as received, for Security-Verify
    std::unique_ptr<UdpPort> udp;          ///< on port_uc
    std::unique_ptr<SaSet> kernel;
    std::uint64_t connection = 0;  ///< opened by the phone from port_uc
    bool is_behind_nat = false;    ///< mode UDP-enc-tun
};

/// SPIs and request ids in use by this process: several phones share a namespace.
class SpiPool {
public:
    /// Those wanted, and where 0 is wanted others after that habit that nobody here uses.
    [[nodiscard]] SpiPair take(SpiPair wanted, const SpiHabit& habit);
    void give_back(std::uint32_t spi) { used_.erase(spi); }
    [[nodiscard]] std::uint32_t next_reqid() { return reqid_++; }

private:
    std::set<std::uint32_t> used_;
    std::uint32_t reqid_ = 0x20000000 | (random_u32() & 0x0fffffff);
};

class PhoneLink {
public:
    struct Owner {
        std::function<void(Incoming)> receive;
        std::function<void(std::string why, const Endpoint& from)> dropped;
        std::function<void(std::string text)> error;
        std::function<void(std::string why)> tls_lost;
    };
    /// `sas` may be null when the phone uses no IPsec.
    PhoneLink(Loop& loop, SaProgrammer* sas, SpiPool& spis, MessageLog& log, const PhoneConfig& config, Owner owner);
    ~PhoneLink();

    /// Opens the protected server port (with IPsec) or the unprotected port.
    [[nodiscard]] Result<void> open();
    /// Chooses SPIs and a client port that is not in use and opens that port.
    [[nodiscard]] Result<SetId> prepare_set();
    /// Puts the four SAs and policies into the kernel. `known`: mode UDP-enc-tun, and the phone's public address; its
    /// protected ports are there from now on.
    [[nodiscard]] Result<void> install(SetId id, const Key<16>& ck, const Key<16>& ik,
                                       const std::optional<Endpoint>& known);
    /// A new REGISTER in clear: what the network knows of the phone's address counts no more.
    void forget_nat();
    void remove_set(SetId id);
    [[nodiscard]] SecuritySet* find(SetId id);
    [[nodiscard]] const SecuritySet* find(SetId id) const;
    [[nodiscard]] std::vector<SetId> sets() const;

    /// Opens the unprotected port if need be. With IPsec it is closed again once registered.
    [[nodiscard]] Result<void> open_clear();
    void close_clear() { clear_udp_.reset(); }
    /// Ends the TLS connection; the next message over it opens another.
    void close_tls() { connections_.erase(std::exchange(tls_connection_, 0)); }
    /// "TLSv1.3 TLS_AES_256_GCM_SHA384" of the TLS connection, empty when there is none.
    [[nodiscard]] std::string tls_protection() const;

    [[nodiscard]] Result<void> send(const std::string& text, const Path& path);
    /// Answers on the path of the request: the same TCP connection, or from port_uc to port_ps (B-15).
    [[nodiscard]] Result<void> reply(const std::string& text, const Incoming& request);

    [[nodiscard]] std::uint16_t port_us() const { return port_us_; }
    /// host:port that the phone names in Via on this path and in Contact.
    [[nodiscard]] std::string sent_by(const Path& path) const;
    [[nodiscard]] std::uint64_t dropped_count() const { return dropped_; }

private:
    void on_datagram_us(const std::string& text, const Endpoint& from);
    void on_accept(Fd fd, const Endpoint& from);
    void deliver(const std::string& text, const Path& path, std::uint64_t connection, const Endpoint& local,
                 const Endpoint& remote);
    void drop(std::string why, const Endpoint& from);
    [[nodiscard]] SetId set_of_port_pc(const Endpoint& from) const;
    [[nodiscard]] TcpConnection::Events events_for(std::uint64_t id, Path path);
    [[nodiscard]] Result<std::uint64_t> connection_for(const Path& path);
    void transmit(TcpConnection& connection, const Path& path, const std::string& text);
    [[nodiscard]] Result<void> open_server_port(std::uint16_t port);
    [[nodiscard]] std::uint16_t choose_port_uc() const;
    [[nodiscard]] std::uint64_t& slot_for(const Path& path);
    [[nodiscard]] Result<void> open_behind_nat(SecuritySet& set, const Endpoint& known);
    /// Where protected ports are: the phone's address, or its public one.
    [[nodiscard]] const Endpoint& protected_address() const { return nat_ ? nat_->public_address() : config_.local; }

    struct Connection {
        SetId set = kClear;
        std::unique_ptr<TcpConnection> tcp;
    };
    Loop& loop_;
    SaProgrammer* sas_;
    SpiPool& spis_;
    MessageLog& log_;
    const PhoneConfig& config_;
    Owner owner_;
    std::uint16_t port_us_ = 0;
    std::uint16_t first_port_uc_ = 0;
    std::uint16_t next_port_uc_ = 0;
    std::unique_ptr<UdpPort> clear_udp_;
    std::unique_ptr<TcpListener> clear_listener_;
    std::uint64_t clear_connection_ = 0;
    std::uint64_t tls_connection_ = 0;
    std::unique_ptr<NatTraversal> nat_;
    std::unique_ptr<UdpPort> udp_us_;
    std::unique_ptr<TcpListener> listener_us_;
    std::map<SetId, SecuritySet> sets_;
    SetId next_set_ = 1;
    std::map<std::uint64_t, Connection> connections_;
    std::uint64_t next_connection_ = 1;
    std::uint64_t dropped_ = 0;
    std::vector<std::uint64_t> dead_;
    Timer sweep_;
};

}  // namespace gmgate::peers
