// Kamailio's I-CSCF and S-CSCF behind the gateway, with the files of examples/kamailio-ims as a user copies them, gmhss
// as their HSS, and dnsmasq with the names of the core.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/integration/scene.h"

namespace gmgate::test {

struct ImsCoreOptions {
    std::string users{};  ///< gmhss --users-file; empty: eight generated users
    std::vector<std::string> hss_arguments{};
    std::vector<std::string> scscf_defines{};  ///< "-A" words of examples/kamailio-ims/scscf.cfg
    std::vector<std::string> records{};        ///< more of dnsmasq's options
    std::string next_hop = std::string("icscf.") + "ims.mnc001.mcc001.3gppnetwork.org";
    std::string core_transport = "udp";
    bool has_tls = false;  ///< the gateway has TLS ports, too
    bool is_v6 = false;    ///< both CSCFs, the HSS and the gateway's core side have IPv6 alone
};

/// The whole deployment. gmcore runs beside it, on an address of its own, as an application server when the HSS says
/// so.
class ImsCore {
public:
    explicit ImsCore(const ImsCoreOptions& options = {});
    ImsCore(const ImsCore&) = delete;
    ImsCore& operator=(const ImsCore&) = delete;
    ~ImsCore();

    Lab& lab() { return *lab_; }
    Program& hss() { return *hss_; }
    Program& icscf() { return *icscf_; }
    Program& scscf() { return *scscf_; }

    /// A crash and a start of the S-CSCF: it knows nobody any more. Returns when it is connected to the HSS again.
    void restart_scscf();
    /// One command of gmhss's; the event that it prints.
    nlohmann::json ask_hss(const std::string& command);
    /// Decisions of the HSS so far, oldest first: "UAR", "MAR", "SAR" or "LIR"; of one user when `impi` is given.
    std::vector<nlohmann::json> decisions(const std::string& command, const std::string& impi = {}) const;
    /// Private identities that the HSS holds registered with this one's subscription.
    std::vector<std::string> registered_with(const std::string& impi);
    /// gmue's options for mechanism tls with a verified certificate, and for a digest user.
    std::vector<std::string> tls_arguments(const std::string& impi, const std::string& password) const;
    /// The end of every log, for INFO.
    std::string logs() const;

    static constexpr const char* kApplicationServer4 = "10.2.0.3";
    static constexpr const char* kHss4 = "10.2.0.4";
    static constexpr const char* kScscf4 = "10.2.0.5";
    static constexpr const char* kNames4 = "10.2.0.53";
    static constexpr const char* kHss6 = "fd02::4";
    static constexpr const char* kScscf6 = "fd02::5";

private:
    /// Addresses of the core's elements, of the family that it has.
    const char* hss_address() const { return options_.is_v6 ? kHss6 : kHss4; }
    const char* scscf_address() const { return options_.is_v6 ? kScscf6 : kScscf4; }
    const char* icscf_address() const { return options_.is_v6 ? Network::kCore6 : Network::kCore4; }

    void start_core(const Network& network);
    void start_names(const Network& network);
    std::unique_ptr<Program> start_kamailio(const Network& network, const std::string& role,
                                            const std::vector<std::string>& more) const;
    std::size_t connected_peers() const;

    ImsCoreOptions options_;
    std::string folder_ = make_temporary_folder();
    std::unique_ptr<Program> names_, hss_, icscf_, scscf_;
    std::unique_ptr<Lab> lab_;
};

}  // namespace gmgate::test
