// The command line of gmue, and how a phone is configured from it.
#pragma once

#include "phone_config.h"

#include <CLI/CLI.hpp>

namespace gmgate::peers {

/// Everything that can be said on the command line, as it was said.
struct Options {
    // The phone
    std::string gateway;
    std::string local;
    std::string addresses;
    std::string impi;
    std::string impu;
    std::string realm;
    std::string imsi;
    std::string k;
    std::string op;
    std::string opc;
    std::string password;
    std::string sqn = "000000000000";
    std::string sqn_file;
    bool emergency = false;
    std::string instance;
    unsigned copies = 1;
    std::size_t index = 0;
    // Protection and transport
    std::string security = "ipsec-3gpp";
    std::uint16_t tls_port = 5061;
    std::string tls_version = "any";
    std::string tls_ca;
    std::string tls_name;
    std::shared_ptr<const TlsContext> tls_context;  ///< made by prepare()
    std::string profile;
    std::string offer = "null/aes-gcm,hmac-sha-1-96/aes-cbc,hmac-sha-1-96/null,hmac-md5-96/aes-cbc";
    bool offer_invalid = false;
    bool nat = false;
    bool nat_private = false;
    double nat_keep_alive = 20;
    std::string register_over = "udp";
    std::string message_over;
    std::uint16_t port = 0;
    std::uint16_t port_us = 0;
    std::uint16_t port_uc = 0;
    std::uint16_t port_base = 20000;
    std::uint32_t spi_uc = 0;
    std::uint32_t spi_us = 0;
    std::uint32_t expires = 600000;
    double t1 = 2;
    double timeout = 32;
    double old_set_grace = 128;
    double answer_after = 0.2;
    bool rport = false;
    bool no_security_verify = false;
    // Faults
    std::string security_client;
    std::string security_verify;
    std::vector<std::string> add_header;
    std::vector<std::string> add_register_header;
    CallBehaviour calls;
    Faults faults;
    // What to do
    std::string expect;
    std::string log;
    bool json = false;
    bool quiet = false;
    bool stay = false;
    std::size_t count = 1;
    double rate = 50;
    double hold = 0;
    bool commands = false;
    bool no_deregister = false;
    std::size_t times = 1;
    std::string csv;  ///< where each second of a load goes as a line
    std::string to;
    std::string text = "Hello from gmue";
    double seconds = 1;
};

/// Puts the common options on the program and makes the subcommands.
void add_options(CLI::App& app, Options& options);
/// What the profile says goes into every option that was not given.
void apply_profile(const CLI::App& app, Options& options);
/// Makes what all phones of the process share and what can fail before there is one: the TLS context.
[[nodiscard]] Result<void> prepare(Options& options);
/// The configuration of the index-th phone of this run.
[[nodiscard]] Result<PhoneConfig> make_config(const Options& options, std::size_t index);

}  // namespace gmgate::peers
