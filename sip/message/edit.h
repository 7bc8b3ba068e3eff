// A list of edits on a message: what nobody edits is forwarded byte for byte.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sip/message/message.h"

namespace gmgate::sip {

/// Collects removals, replacements and insertions against one message and writes the result. The edits copy their
/// texts; the message must outlive the writer. Edits may be given in any order; two that touch the same octets are a
/// programming error (asserted in debug builds; in release the later is dropped). Edits of one field value compose:
/// replace_value and remove_option_tag work on what the earlier ones left; removing a field wins over all of them. A CR
/// or LF inside a given line or value becomes a blank, so that no text can bring a header field of its own. What is
/// written has one Content-Length, and it is that of the body (RFC 3261 §20.14): a reader that takes none for zero
/// would take the body for the next message of the stream.
class Edit {
public:
    /// What is written without a text of its own, one piece after the other.
    using Pieces = std::initializer_list<std::string_view>;

    explicit Edit(const Message& message) : message_(message) {}

    void set_start_line(std::string_view text);  ///< without CRLF
    void remove_field(std::size_t index);
    void remove_all(HeaderId id);
    /// Removes every field whose name matches whole and case-insensitively (for headers without an id).
    void remove_all(std::string_view name) { remove_all(std::span(&name, 1)); }
    void remove_all(std::span<const std::string_view> names);
    void replace_value(std::size_t index, std::string_view value);  ///< keeps the name as it came
    /// Replaces octets [begin, end) of the message.
    void replace(std::size_t begin, std::size_t end, std::string_view text);
    /// New field lines, given as "Name: value" without CRLF. Before the first field of `before` if there is one, else
    /// as the last.
    void insert_before(HeaderId before, Pieces line);
    void insert_before(HeaderId before, std::string_view line) { insert_before(before, Pieces{line}); }
    void prepend(std::string_view line);  ///< as the first header field
    void append(Pieces line);             ///< as the last header field
    void append(std::string_view line) { append(Pieces{line}); }
    /// Takes one option tag out of a comma list (all fields of `id`); a field that becomes empty is removed (A-18,
    /// Returns whether it was there.
    bool remove_option_tag(HeaderId id, std::string_view tag);
    void set_body(std::string_view body);

    bool empty() const { return changes_.empty(); }
    std::string to_string() const;  ///< the edited message, one allocation

private:
    struct Text {
        std::size_t begin, size;  ///< in texts_
    };
    struct Change {
        std::size_t begin, end;
        Text text;
        std::ptrdiff_t order;  ///< among insertions at one place; negative ones are prepended
    };
    std::string_view view(Text text) const { return std::string_view(texts_).substr(text.begin, text.size); }
    Text keep(std::string_view text);
    /// As one line: what would end it becomes a blank.
    Text keep_line(Pieces line, std::string_view end);
    void add(std::size_t begin, std::size_t end, Text text, bool in_front = false);
    Change* change_of_value(const HeaderField& field);
    bool is_removed(const HeaderField& field) const;
    /// The field's value as the edits so far leave it.
    std::string_view current_value(const HeaderField& field);
    void set_value(const HeaderField& field, std::string_view value);
    /// Whether the Content-Length that the message came with can stay: written plainly, and that of the body.
    bool has_right_length() const;
    void write_length();
    std::string write() const;

    const Message& message_;
    std::vector<Change> changes_;  ///< in the order of writing, without overlaps
    std::string texts_;            ///< of all changes, one behind the other
    std::ptrdiff_t appended_ = 0, prepended_ = 0;
    std::size_t body_size_ = message_.body().size();
};

/// A response to `request`: status line, all Via, From, To (with `to_tag` added when it has none and status > 100),
/// Call-ID, CSeq, then `extra` lines ("Name: value" without CRLF), Content-Length: 0. RFC 3261 §8.2.6.
std::string make_response(const Message& request, int status, std::string_view reason_phrase, std::string_view to_tag,
                          const std::vector<std::string>& extra = {});
/// A Warning line that tells people what was wrong (RFC 3261 §20.43, code 399): of `why` at most 240 octets, without
/// what a quoted string may not hold.
std::string warning_line(std::string_view why);
/// What make_response() made, with a body.
std::string with_body(std::string response, std::string_view content_type, std::string_view body);

/// Response 400 for bytes that did not parse but are answerable; nullopt when they are not. Copies what could be read;
/// the To tag is a digest of it, so that a retransmission gets the same answer (RFC 3261 §8.2.7). Another SIP version
/// is answered 505, what is too large 513.
std::optional<std::string> make_bad_request(std::string_view bytes, const ParseError& error);

}  // namespace gmgate::sip
