#include "daemon/tls/engine.h"

#include "ktls/kernel_keys.h"

namespace gmgate::daemon {
namespace {

constexpr unsigned kThreads = 2;

ktls::KernelTls mode_of(Ktls mode) {
    switch (mode) {
        case Ktls::required:
            return ktls::KernelTls::required;
        case Ktls::preferred:
            return ktls::KernelTls::preferred;
        case Ktls::off:
            return ktls::KernelTls::off;
    }
    return ktls::KernelTls::off;
}

class TlsStream final : public sip::ByteStream {
public:
    explicit TlsStream(std::unique_ptr<ktls::Connection> connection) : connection_(std::move(connection)) {}
    Task<Result<std::size_t>> read(std::string& out) override { return connection_->read(out); }
    Task<Result<void>> write(std::string_view bytes) override { return connection_->write(bytes); }
    std::size_t write_now(std::string_view bytes) override { return connection_->write_now(bytes); }
    bool half_close() override { return connection_->half_close(); }
    void close(bool reset) override { connection_->close(reset); }
    int native_handle() const override { return connection_->is_kernel() ? connection_->native_handle() : -1; }
    void set_step_mark(StepMark mark) override { connection_->set_step_mark(mark); }
    std::optional<sip::Protection> protection() const override {
        const auto info = connection_->info();
        sip::Protection told{std::string(to_string(info.version)), std::string(to_string(info.cipher)), info.resumed,
                             "OpenSSL in gmgated"};
        if (!connection_->is_kernel()) return told;
        const auto kernel = ktls::kernel_session(connection_->native_handle());  // its word, not our memory
        if (!kernel) {
            told.carried_by = "nobody: " + kernel.error().text;
            return told;
        }
        told.version = to_string(kernel->version);
        told.cipher = to_string(kernel->cipher);
        told.carried_by = kernel->sends && kernel->receives ? "the kernel"
                          : kernel->sends                   ? "the kernel, sending only"
                                                            : "the kernel, receiving only";
        return told;
    }

private:
    std::unique_ptr<ktls::Connection> connection_;
};

}  // namespace

Result<ktls::Handshaker*> TlsEngine::handshaker() {
    if (!handshaker_) {
        auto made = ktls::Handshaker::make(
            executor_, {.kernel = mode_of(config_.ktls), .threads = kThreads, .rekey = config_.tls_rekey});
        if (!made) return std::unexpected(made.error());
        handshaker_ = std::make_unique<ktls::Handshaker>(std::move(*made));
    }
    return handshaker_.get();
}

std::string TlsEngine::kernel_words() const {
    if (!handshaker_) return {};
    if (handshaker_->uses_kernel() && config_.tls_rekey)
        return handshaker_->can_rekey() ? "in the kernel, KeyUpdate followed (tls-rekey)"
                                        : "in the kernel; tls-rekey has no effect: " + handshaker_->no_rekey_reason();
    return handshaker_->uses_kernel() ? "in the kernel" : "in this process: " + handshaker_->no_kernel_reason();
}

const ktls::Counters* TlsEngine::counters() const { return handshaker_ ? &handshaker_->counters() : nullptr; }

std::vector<ktls::CertificateFiles> certificate_files(const TlsProfile& profile) {
    std::vector<ktls::CertificateFiles> files;
    for (std::size_t i = 0; i < profile.end_entity_certs.size(); ++i)
        files.push_back({profile.end_entity_certs[i], profile.private_keys[i]});
    return files;
}

std::unique_ptr<sip::ByteStream> as_byte_stream(std::unique_ptr<ktls::Connection> connection) {
    return std::make_unique<TlsStream>(std::move(connection));
}

}  // namespace gmgate::daemon
