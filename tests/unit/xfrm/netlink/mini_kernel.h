// A NetlinkSocket that plays the kernel's SAD and SPD message by message, so that every single message can fail.
#pragma once

#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>

#include "xfrm/netlink/kernel.h"

namespace gmgate::test {

template <class T>
T finish(asio::io_context& io, Task<T> task) {
    std::optional<T> out;
    asio::co_spawn(io, std::move(task), [&out](std::exception_ptr, T value) { out = std::move(value); });
    io.restart();
    io.run();
    return std::move(*out);
}

/// SAs by (address, SPI) with the whole usersa_info, policies by (direction, selector). Written from linux/xfrm.h and
/// the kernel's behaviour (a failing message does not stop those behind it), not from the codec.
class MiniKernel final : public xfrm::NetlinkSocket {
public:
    struct State {
        struct StoredSa {
            xfrm_usersa_info info{};
            std::uint32_t mark = 0;
            std::optional<xfrm_encap_tmpl> encap{};
        };
        std::map<std::string, StoredSa> sas;
        std::map<std::string, xfrm_userpolicy_info> policies;
        std::map<std::string, xfrm_user_tmpl> templates;
        std::uint64_t messages = 0;                   ///< handled so far
        std::map<std::uint64_t, int> failures;        ///< by message number from 1
        std::map<std::uint64_t, int> silent_sends;    ///< sendmsg number: 1 = executed but no answer, 2 = lost unseen
        std::map<std::uint64_t, int> receive_errors;  ///< receive number → errno instead of an answer
        int send_error = 0;
        std::uint64_t sends = 0, receives = 0, opens = 0;
        std::size_t largest_batch = 0;
        std::vector<std::vector<std::uint8_t>> sent;  ///< copies of all requests
        bool refuse_open = false;
    };

    explicit MiniKernel(State& state) : s_(state) {}

    Result<void> open() override {
        if (s_.refuse_open) return system_failure(Reaction::broken, "no socket", EMFILE);
        ++s_.opens;
        answers_.clear();
        is_open_ = true;
        return {};
    }
    void close() override { is_open_ = false; }
    bool is_open() const override { return is_open_; }
    std::uint64_t system_calls() const override { return s_.sends + s_.receives; }

    Task<Result<void>> send(std::span<const std::span<const std::uint8_t>> parts) override {
        ++s_.sends;
        if (s_.send_error != 0) co_return system_failure(Reaction::retry, "no memory", s_.send_error);
        std::vector<std::uint8_t> all;
        for (const auto part : parts) all.insert(all.end(), part.begin(), part.end());
        s_.sent.push_back(all);
        const auto found = s_.silent_sends.find(s_.sends);
        const int silence = found == s_.silent_sends.end() ? 0 : found->second;
        if (silence != 2) execute(all);
        if (silence != 0) answers_.clear();
        gmgate::wipe(all);
        co_return Result<void>{};
    }
    Task<Result<std::size_t>> receive(std::span<std::uint8_t> buffer, std::chrono::milliseconds) override {
        ++s_.receives;
        if (const auto found = s_.receive_errors.find(s_.receives); found != s_.receive_errors.end())
            co_return system_failure(Reaction::broken, "answers lost", found->second);
        if (answers_.empty())
            co_return system_failure(Reaction::broken, "the kernel did not answer in time", ETIMEDOUT);
        const auto answer = std::move(answers_.front());
        answers_.pop_front();
        std::memcpy(buffer.data(), answer.data(), answer.size());
        co_return answer.size();
    }

private:
    static std::string key_of(const xfrm_address_t& address, __be32 spi) {
        std::string key(reinterpret_cast<const char*>(&address), sizeof address);
        return key.append(reinterpret_cast<const char*>(&spi), sizeof spi);
    }
    static std::string key_of(const xfrm_selector& sel, std::uint8_t dir) {
        return std::string(reinterpret_cast<const char*>(&sel), sizeof sel) + static_cast<char>(dir);
    }
    template <class T>
    static T body(const nlmsghdr* message) {
        T out;
        std::memcpy(&out, reinterpret_cast<const char*>(message) + NLMSG_HDRLEN, sizeof out);
        return out;
    }
    static const nlattr* attribute(const nlmsghdr* message, std::size_t fixed, int type) {
        const auto* at = reinterpret_cast<const char*>(message) + NLMSG_HDRLEN + NLMSG_ALIGN(fixed);
        const auto* end = reinterpret_cast<const char*>(message) + message->nlmsg_len;
        while (at + sizeof(nlattr) <= end) {
            const auto* a = reinterpret_cast<const nlattr*>(at);
            if (a->nla_type == type) return a;
            at += NLMSG_ALIGN(a->nla_len);
        }
        return nullptr;
    }

    void execute(const std::vector<std::uint8_t>& all) {
        std::size_t at = 0, count = 0;
        while (at < all.size()) {
            const auto* message = reinterpret_cast<const nlmsghdr*>(all.data() + at);
            ++s_.messages;
            ++count;
            const auto failure = s_.failures.find(s_.messages);
            const int code = failure != s_.failures.end() ? failure->second : apply(message);
            const bool is_dump = (message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
            if (code != 0 || ((message->nlmsg_flags & NLM_F_ACK) && !is_dump)) answer_status(message->nlmsg_seq, code);
            at += NLMSG_ALIGN(message->nlmsg_len);
        }
        s_.largest_batch = std::max(s_.largest_batch, count);
    }

    int apply(const nlmsghdr* message) {
        switch (message->nlmsg_type) {
            case XFRM_MSG_NEWSA:
                return add(message);
            case XFRM_MSG_UPDSA:
                return update(message);
            case XFRM_MSG_DELSA: {
                const auto id = body<xfrm_usersa_id>(message);
                return s_.sas.erase(key_of(id.daddr, id.spi)) ? 0 : ESRCH;
            }
            case XFRM_MSG_GETSA:
                return get(message);
            case XFRM_MSG_NEWPOLICY: {
                const auto info = body<xfrm_userpolicy_info>(message);
                const auto key = key_of(info.sel, info.dir);
                if (!s_.policies.emplace(key, info).second) return EEXIST;
                std::memcpy(&s_.templates[key],
                            reinterpret_cast<const char*>(attribute(message, sizeof info, XFRMA_TMPL)) + NLA_HDRLEN,
                            sizeof(xfrm_user_tmpl));
                return 0;
            }
            case XFRM_MSG_DELPOLICY: {
                const auto id = body<xfrm_userpolicy_id>(message);
                return s_.policies.erase(key_of(id.sel, id.dir)) ? 0 : ENOENT;
            }
            case XFRM_MSG_GETPOLICY: {
                if ((message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) return tell_policies(message);
                const auto id = body<xfrm_userpolicy_id>(message);
                const auto found = s_.policies.find(key_of(id.sel, id.dir));
                if (found == s_.policies.end()) return ENOENT;
                answer_policy(message->nlmsg_seq, found->second, s_.templates[found->first]);
                return 0;
            }
            default:
                return EOPNOTSUPP;
        }
    }
    int add(const nlmsghdr* message) {
        auto info = body<xfrm_usersa_info>(message);
        info.curlft.add_time = static_cast<__u64>(time(nullptr));
        State::StoredSa stored{info, 0, encap_of(message)};
        if (const auto* mark = attribute(message, sizeof info, XFRMA_SET_MARK))
            std::memcpy(&stored.mark, reinterpret_cast<const char*>(mark) + NLA_HDRLEN, 4);
        return s_.sas.emplace(key_of(info.id.daddr, info.id.spi), stored).second ? 0 : EEXIST;
    }
    int update(const nlmsghdr* message) {
        const auto info = body<xfrm_usersa_info>(message);
        const auto found = s_.sas.find(key_of(info.id.daddr, info.id.spi));
        if (found == s_.sas.end()) return ESRCH;
        const auto encap = encap_of(message);
        if (encap.has_value() != found->second.encap.has_value()) return EINVAL;
        found->second.info.lft = info.lft;
        found->second.encap = encap;
        return 0;
    }
    static std::optional<xfrm_encap_tmpl> encap_of(const nlmsghdr* message) {
        const auto* told = attribute(message, sizeof(xfrm_usersa_info), XFRMA_ENCAP);
        if (!told) return std::nullopt;
        xfrm_encap_tmpl encap;
        std::memcpy(&encap, reinterpret_cast<const char*>(told) + NLA_HDRLEN, sizeof encap);
        return encap;
    }
    int tell_policies(const nlmsghdr* message) {
        for (const auto& [key, info] : s_.policies) answer_policy(message->nlmsg_seq, info, s_.templates[key]);
        int done = 0;
        put(NLMSG_DONE, message->nlmsg_seq, NLM_F_MULTI, &done, sizeof done, 0);
        return 0;
    }
    int get(const nlmsghdr* message) {
        if ((message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) {
            for (const auto& [key, stored] : s_.sas) answer_sa(message->nlmsg_seq, stored);
            int done = 0;
            put(NLMSG_DONE, message->nlmsg_seq, NLM_F_MULTI, &done, sizeof done, 0);
            return 0;
        }
        const auto id = body<xfrm_usersa_id>(message);
        const auto found = s_.sas.find(key_of(id.daddr, id.spi));
        if (found == s_.sas.end()) return ESRCH;
        answer_sa(message->nlmsg_seq, found->second);
        return 0;
    }

    std::vector<std::uint8_t>& put(int type, std::uint32_t sequence, int flags, const void* fixed, std::size_t size,
                                   std::size_t extra) {
        auto& out = answers_.emplace_back(NLMSG_ALIGN(NLMSG_HDRLEN + size) + extra);
        nlmsghdr header{static_cast<__u32>(out.size()), static_cast<__u16>(type), static_cast<__u16>(flags), sequence,
                        0};
        std::memcpy(out.data(), &header, sizeof header);
        std::memcpy(out.data() + NLMSG_HDRLEN, fixed, size);
        return out;
    }
    static std::size_t put_attribute(std::vector<std::uint8_t>& out, std::size_t at, int type, const void* data,
                                     std::size_t size) {
        const nlattr header{static_cast<__u16>(NLA_HDRLEN + size), static_cast<__u16>(type)};
        std::memcpy(out.data() + at, &header, sizeof header);
        std::memcpy(out.data() + at + NLA_HDRLEN, data, size);
        return at + NLMSG_ALIGN(NLA_HDRLEN + size);
    }
    void answer_status(std::uint32_t sequence, int code) {
        nlmsgerr status{};
        status.error = -code;
        static constexpr char text[] = "made to fail by the test";
        auto& out = put(NLMSG_ERROR, sequence, code ? NLM_F_CAPPED | NLM_F_ACK_TLVS : NLM_F_CAPPED, &status,
                        sizeof status, code ? NLMSG_ALIGN(NLA_HDRLEN + sizeof text) : 0);
        if (code) put_attribute(out, NLMSG_HDRLEN + sizeof status, NLMSGERR_ATTR_MSG, text, sizeof text);
    }
    // With a key in it, as the kernel does.
    void answer_sa(std::uint32_t sequence, const State::StoredSa& stored) {
        std::array<char, sizeof(xfrm_algo_auth) + 20> auth{};
        std::strcpy(auth.data(), "hmac(sha1)");
        std::memset(auth.data() + sizeof(xfrm_algo_auth), 0xA5, 20);
        xfrm_algo crypt{};
        std::strcpy(crypt.alg_name, "cbc(aes)");
        const std::size_t extra = NLMSG_ALIGN(NLA_HDRLEN + sizeof auth) + NLMSG_ALIGN(NLA_HDRLEN + sizeof crypt) +
                                  (stored.mark != 0 ? 8 : 0) +
                                  (stored.encap ? NLMSG_ALIGN(NLA_HDRLEN + sizeof *stored.encap) : 0);
        auto& out = put(XFRM_MSG_NEWSA, sequence, 0, &stored.info, sizeof stored.info, extra);
        auto at = put_attribute(out, NLMSG_HDRLEN + NLMSG_ALIGN(sizeof stored.info), XFRMA_ALG_AUTH_TRUNC, auth.data(),
                                sizeof auth);
        at = put_attribute(out, at, XFRMA_ALG_CRYPT, &crypt, sizeof crypt);
        if (stored.encap) at = put_attribute(out, at, XFRMA_ENCAP, &*stored.encap, sizeof *stored.encap);
        if (stored.mark != 0) put_attribute(out, at, XFRMA_SET_MARK, &stored.mark, sizeof stored.mark);
    }
    void answer_policy(std::uint32_t sequence, const xfrm_userpolicy_info& info, const xfrm_user_tmpl& tmpl) {
        auto& out = put(XFRM_MSG_NEWPOLICY, sequence, 0, &info, sizeof info, NLMSG_ALIGN(NLA_HDRLEN + sizeof tmpl));
        put_attribute(out, NLMSG_HDRLEN + NLMSG_ALIGN(sizeof info), XFRMA_TMPL, &tmpl, sizeof tmpl);
    }

    State& s_;
    bool is_open_ = false;
    std::deque<std::vector<std::uint8_t>> answers_;
};

}  // namespace gmgate::test
