// One SIP message as views into the caller's bytes: one pass, no allocation, nothing copied.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "sip/limits.h"

namespace gmgate::sip {

enum class Method : std::uint8_t {
    invite, ack, bye, cancel, register_, options, prack, update, info, subscribe, notify, message, refer, publish, other,
};
std::string_view to_string(Method method);  ///< "REGISTER"; "" for other

/// Header fields that some code of ours asks for by name; everything else is `other` and is forwarded untouched. Compact forms map
/// to the same id (RFC 3261 §7.3.3, §20).
enum class HeaderId : std::uint8_t {
    other, via, from, to, call_id, cseq, contact, max_forwards, content_length, content_type, content_encoding, expires, min_expires,
    route, record_route, path, service_route, require, proxy_require, supported, unsupported, allow, authorization,
    www_authenticate, proxy_authorization, proxy_authenticate, authentication_info, security_client, security_server, security_verify,
    p_access_network_info, p_asserted_identity, p_preferred_identity, p_associated_uri, p_called_party_id, p_visited_network_id,
    p_charging_vector, p_charging_function_addresses, p_asserted_service, p_preferred_service, p_served_user, p_early_media,
    p_private_network_indication, resource_priority, history_info, privacy, event, subscription_state, retry_after, warning, date, server,
    user_agent, reason, rack, rseq, refer_to, session_expires, min_se, feature_caps, geolocation, accept_contact, subject, allow_events,
    kCount_,
};
/// Whole name, case-insensitive, compact forms included; `other` when unknown.
HeaderId header_id(std::string_view name);
/// The canonical long name ("Security-Client").
std::string_view to_string(HeaderId id);

/// Why bytes are not a SIP message. `reason` is fit for a 400 response's reason phrase or Warning text.
struct ParseError {
    std::string_view reason;      ///< static text
    std::size_t offset = 0;       ///< where in the bytes
    bool answerable = false;      ///< true when enough of a request was read to answer 400 (Via, From, To, Call-ID, CSeq)
};

/// One header field line (folded lines belong to one field).
struct HeaderField {
    HeaderId id = HeaderId::other;
    std::string_view name;
    std::string_view value;  ///< without leading and trailing white space; folds inside are kept as they came
    std::size_t begin = 0;   ///< offset of the first octet of the name in the message
    std::size_t end = 0;     ///< offset after the CRLF that ends the field
};

/// A parsed message. It borrows the bytes: they must outlive it, unchanged. Cannot be made from a temporary string.
class Message {
public:
    /// Parses start line and header fields and finds the body. Validated here: start line (SIP/2.0), header field syntax,
    /// CSeq (number, method equal to the request's), Content-Length (numeric, one value, not beyond the bytes), presence of Via,
    /// From, To, Call-ID, CSeq; limits of limits.h. Bytes after Content-Length in a datagram are cut off; a missing Content-Length
    /// means "to the end" (UDP, RFC 3261 §18.3). A bare LF or CR is an error: readers differ.
    static std::expected<Message, ParseError> parse(std::string_view bytes);
    static std::expected<Message, ParseError> parse(std::string&&) = delete;

    bool is_request() const { return status_ == 0; }
    bool is_response() const { return status_ != 0; }
    Method method() const { return method_; }               ///< of a response: the CSeq method
    std::string_view method_name() const;                   ///< as it came, also for `other`
    std::string_view request_uri() const;                   ///< "" for a response
    int status() const { return status_; }                  ///< 0 for a request
    std::string_view reason_phrase() const;
    std::uint32_t cseq() const { return cseq_; }

    std::string_view bytes() const { return bytes_; }       ///< the whole message
    std::string_view start_line() const;                    ///< without CRLF
    std::string_view body() const;
    std::size_t fields_begin() const;                       ///< offset of the first header field
    std::size_t fields_end() const;                         ///< offset of the empty line

    std::size_t field_count() const { return count_; }
    HeaderField field(std::size_t index) const;
    /// First field of that id at or after `from` (an index); nullopt when there is none.
    std::optional<std::size_t> find(HeaderId id, std::size_t from = 0) const;
    bool has(HeaderId id) const { return find(id).has_value(); }
    /// Value of the first field of that id, "" when there is none.
    std::string_view value(HeaderId id) const;
    /// Calls f(HeaderField) for each field of that id, in order.
    template <class F>
    void for_each(HeaderId id, F&& f) const {
        for (auto i = find(id); i; i = find(id, *i + 1)) f(field(*i));
    }

    /// Only parse() makes messages; the key keeps the constructor usable for std::expected and for nobody else.
    class Key {
        friend class Message;
        Key() {}
    };
    explicit Message(Key) noexcept {}  // leaves slots_ as it is: zeroing 2 KB would cost more than many a parse
    Message(const Message& other) noexcept { *this = other; }
    Message& operator=(const Message& other) noexcept;  ///< copies the slots in use only

private:
    class Reader;
    struct Slot {  // offsets, so that a field costs 16 octets
        std::uint32_t begin, value;
        std::uint16_t value_length, name_length;
        std::uint32_t end : 24;
        std::uint32_t id : 8;
    };
    std::string_view bytes_;
    std::array<Slot, kMaxHeaderFields> slots_;
    std::size_t count_ = 0;
    std::uint64_t seen_ = 0;                        ///< bit of each HeaderId that occurs
    std::uint32_t start_line_length_ = 0, fields_begin_ = 0, fields_end_ = 0, body_ = 0;
    std::uint32_t target_ = 0, target_length_ = 0;  ///< Request-URI or reason phrase
    std::uint32_t cseq_ = 0;
    std::uint16_t status_ = 0;
    Method method_ = Method::other;
};

/// A message that owns its bytes: what crosses a co_await, a queue or a table. Move-only; the views stay valid when it moves.
class OwnedMessage {
public:
    static std::expected<OwnedMessage, ParseError> parse(std::string_view bytes);  ///< copies the bytes once
    const Message& operator*() const { return message_; }
    const Message* operator->() const { return &message_; }
    OwnedMessage(OwnedMessage&&) noexcept = default;
    OwnedMessage& operator=(OwnedMessage&&) noexcept = default;
    /// Overwrites the bytes (a 401 that carried ck and ik); the message is then unusable.
    void wipe() noexcept;

private:
    OwnedMessage(std::unique_ptr<char[]> bytes, std::size_t size, const Message& message)
        : bytes_(std::move(bytes)), size_(size), message_(message) {}
    std::unique_ptr<char[]> bytes_;
    std::size_t size_ = 0;  ///< of bytes_: at least the message's
    Message message_;
};

}  // namespace gmgate::sip
