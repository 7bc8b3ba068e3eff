// The subscribers of gmcore: read from TOML, or generated for load. This is the HSS half of the program.
#pragma once

#include "../common/aka.h"
#include "../common/digest.h"
#include "../common/loop.h"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace gmgate::peers {

/// One challenge that was sent and not yet answered.
struct Challenge {
    std::string nonce;
    std::optional<AuthVector> vector;  ///< AKA users only
};

/// Where a registered phone is reached.
struct Binding {
    std::string contact;            ///< URI
    std::string parameters;         ///< of the Contact header, expires taken out
    std::string instance;           ///< +sip.instance and reg-id, or empty
    std::vector<std::string> path;  ///< RFC 3327, topmost first
    Clock::time_point expires;
    std::string call_id;
    std::uint32_t cseq = 0;
};

struct User {
    std::string impi;
    std::vector<std::string> impus;  ///< URIs; the first is the default identity, all are one implicit registration set
    std::optional<AkaSecrets> aka;   ///< absent: plain digest with `password`
    SecretBytes password;
    Sqn sqn;
    Amf amf{0x80, 0x00};
    DigestAlgorithm algorithm = DigestAlgorithm::akav1_md5;
    std::string qop = "auth";  ///< empty: no qop in the challenge

    std::deque<Challenge> pending;
    std::string last_good_nonce;
    std::vector<Binding> bindings;

    /// The next sequence number: SEQ grows by one, IND (5 bits) stays 0. TS 33.102 Annex C.1.1.
    [[nodiscard]] Sqn next_sqn();
    /// Bindings that have not expired; drops the others.
    [[nodiscard]] std::vector<Binding>& live_bindings();
};

/// How users for load tests are made; user i differs in the last digits of the IMSI and the last octets of K.
struct UserRange {
    std::string first_imsi = "001010000000001";
    std::size_t count = 0;
    std::array<std::uint8_t, 16> k{};
    std::array<std::uint8_t, 16> opc{};
};

class UserStore {
public:
    /// Whether a public identity may belong to several private ones, as with several devices of one subscription.
    enum class Sharing { refused, allowed };
    explicit UserStore(std::string realm, Sharing sharing = Sharing::refused)
        : realm_(std::move(realm)), sharing_(sharing) {}
    /// Reads [[user]] and [[range]] tables; errors name line and column.
    [[nodiscard]] Result<void> load(const std::string& file);
    void add_range(const UserRange& range, std::string_view qop, DigestAlgorithm algorithm);
    [[nodiscard]] User* by_impi(std::string_view impi);
    /// With shared identities the first user who has it.
    [[nodiscard]] User* by_aor(std::string_view uri);
    /// True when this is one of the user's public identities.
    [[nodiscard]] static bool owns(const User& user, std::string_view uri);
    void for_each(const std::function<void(User&)>& f) {
        for (auto& [impi, user] : users_) f(*user);
    }
    [[nodiscard]] const std::string& realm() const { return realm_; }
    [[nodiscard]] std::size_t size() const { return users_.size(); }

private:
    [[nodiscard]] Result<void> add(std::unique_ptr<User> user);
    std::string realm_;
    Sharing sharing_;
    std::map<std::string, std::unique_ptr<User>, std::less<>> users_;
    std::map<std::string, User*, std::less<>> by_aor_;
};

}  // namespace gmgate::peers
