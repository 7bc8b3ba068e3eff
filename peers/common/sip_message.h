// A SIP message that owns its text. Simple and strict where it matters; it shares nothing with the gateway's parser.
#pragma once

#include "error.h"
#include "sip_uri.h"

#include <string>
#include <string_view>
#include <vector>

namespace gmgate::peers {

struct Header {
    std::string name;  ///< long form, even when the message used the compact form
    std::string value;
};

class SipMessage {
public:
    /// Parses one complete message; the body is what Content-Length says (all the rest when it is absent, as on UDP).
    [[nodiscard]] static Result<SipMessage> parse(std::string_view text);
    [[nodiscard]] static SipMessage request(std::string method, std::string uri);
    /// A response to a request: Via, From, To, Call-ID and CSeq copied (RFC 3261 §8.2.6), a To tag added unless the
    /// status is 100.
    [[nodiscard]] static SipMessage response_to(const SipMessage& request, int status, std::string_view reason,
                                                std::string_view to_tag);
    [[nodiscard]] std::string to_string() const;

    [[nodiscard]] bool is_request() const { return status_ == 0; }
    [[nodiscard]] bool is(std::string_view method) const { return is_request() && method_ == method; }
    [[nodiscard]] const std::string& method() const { return method_; }  ///< of a response: that of its CSeq
    [[nodiscard]] const std::string& uri() const { return uri_; }
    void set_uri(std::string uri) { uri_ = std::move(uri); }
    [[nodiscard]] int status() const { return status_; }
    [[nodiscard]] const std::string& reason() const { return reason_; }

    /// First value of a header, or nullptr.
    [[nodiscard]] const std::string* find(std::string_view name) const;
    [[nodiscard]] std::string get(std::string_view name) const;
    /// All entries of a list header, across lines and commas, in order.
    [[nodiscard]] std::vector<std::string> list(std::string_view name) const;
    /// True when the list header holds that token (case-insensitive).
    [[nodiscard]] bool list_has(std::string_view name, std::string_view token) const;
    void add(std::string_view name, std::string value);
    void add_front(std::string_view name, std::string value);
    void set(std::string_view name, std::string value);
    void remove(std::string_view name);
    /// Replaces a list header by one line per entry, at the place of its first line.
    void set_list(std::string_view name, const std::vector<std::string>& entries);
    [[nodiscard]] const std::vector<Header>& headers() const { return headers_; }

    std::string body;

    [[nodiscard]] std::string call_id() const { return get("Call-ID"); }
    [[nodiscard]] std::uint32_t cseq() const;
    /// tag parameter of From or To, empty when absent.
    [[nodiscard]] std::string tag(std::string_view header) const;
    /// Branch of the topmost Via, empty when absent.
    [[nodiscard]] std::string branch() const;
    /// URI inside From, To, Contact…; empty when absent or malformed.
    [[nodiscard]] std::string uri_of(std::string_view header) const;

private:
    std::string method_;
    std::string uri_;
    int status_ = 0;
    std::string reason_;
    std::vector<Header> headers_;
};

/// One Via value: SIP/2.0/TRANSPORT host:port;parameters.
struct Via {
    std::string transport;
    std::string host;
    std::uint16_t port = 0;
    Parameters parameters;
    [[nodiscard]] static Result<Via> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;
};

/// Standard reason phrase of a status code.
[[nodiscard]] std::string_view reason_phrase(int status);

}  // namespace gmgate::peers
