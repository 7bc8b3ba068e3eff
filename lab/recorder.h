// The two files that Wireshark needs: a capture, and the table of SAs that opens it.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "lab/access_capture.h"
#include "xfrm/export/sa_keys.h"

namespace gmgate::lab {

/// A file for the caller alone: made anew, or emptied. A link is not followed.
class SecretFile {
public:
    static Result<SecretFile> open(const std::string& path);
    SecretFile(SecretFile&& other) noexcept;
    SecretFile& operator=(SecretFile&&) = delete;
    ~SecretFile();
    /// Reaction::broken: the disk is full, for example.
    Result<void> write(std::string_view bytes);

private:
    SecretFile(int file, std::string path) : file_(file), path_(std::move(path)) {}
    int file_;
    std::string path_;
};

class Recorder {
public:
    struct Settings {
        ReqId reqid;
        std::string tls_key_log;  ///< what gmgated appends to; need not exist
    };
    /// `capture` begins here.
    static Result<Recorder> begin(Settings settings, SecretFile table, SecretFile capture);

    /// The line of a new SA is written at once. The packet itself waits for two seconds: Wireshark wants the secrets of
    /// a TLS session before its handshake, and the gateway has them during it.
    Result<void> take(const AccessCapture::Packet& packet);
    /// Writes what has waited long enough, or all of it, behind the secrets that have come.
    Result<void> write_due(bool all = false);
    /// The SAs that stand now.
    Result<void> look();
    std::size_t sas() const { return known_.size(); }
    std::size_t packets() const { return packets_; }

private:
    Recorder(Settings settings, SecretFile table, SecretFile capture)
        : settings_(std::move(settings)), table_(std::move(table)), capture_(std::move(capture)) {}
    Result<void> look_for(const xfrm::SaId& sa);
    Result<void> copy_tls_secrets();

    Settings settings_;
    SecretFile table_, capture_;
    std::map<xfrm::SaId, AlgorithmPair> known_;
    std::vector<std::string> lines_;  ///< of known_, so that an SPI with other keys gets a line of its own
    std::chrono::steady_clock::time_point looked_{};
    struct Waiting {
        std::chrono::steady_clock::time_point since;
        std::string block;
    };
    std::deque<Waiting> waiting_;
    std::size_t octets_ = 0;  ///< of waiting_
    std::uint64_t tls_read_ = 0;
    std::size_t packets_ = 0;
};

}  // namespace gmgate::lab
