// What holds for every input of the SIP parser, hostile ones included. Used by the fuzz targets and by the unit tests'
// property cases.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "sip/message/digest.h"
#include "sip/message/edit.h"
#include "sip/message/framer.h"
#include "sip/message/headers.h"
#include "sip/message/message.h"
#include "sip/message/sec_agree.h"

namespace gmgate::sip::invariants {

/// Ends the process, so that a fuzzer keeps the input and a test fails.
inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "invariant broken: %s\n", what);
    std::abort();
}

inline void inside(std::string_view part, std::string_view whole, const char* what) {
    if (part.empty()) return;
    require(part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size(), what);
}

inline void check_typed_values(const HeaderField& field) {
    Split elements(field.value, ',');
    while (const auto element = elements.next()) {
        inside(*element, field.value, "a list element lies inside its value");
        if (const auto address = NameAddr::parse(*element)) {
            inside(address->uri, *element, "a URI lies inside its element");
            inside(address->parameter("tag").value_or(""), *element, "a parameter lies inside its element");
            if (const auto uri = Uri::parse(address->uri))
                inside(uri->host, *element, "a host lies inside its element");
        }
        if (const auto via = Via::parse(*element)) inside(via->branch(), *element, "a branch lies inside its element");
    }
    if (const auto digest = DigestParams::parse(field.value))
        for (const AuthParam& p : digest->all()) {
            require(p.begin < p.end && p.end <= field.value.size(), "an auth-param has its place in the value");
            require(field.value.substr(p.begin, p.name.size()) == p.name, "an auth-param begins with its name");
            inside(p.value, field.value, "an auth-param's value lies inside");
            require(p.raw_value.empty() || p.raw_value.data() + p.raw_value.size() == field.value.data() + p.end,
                    "… and ends there");
        }
}

inline void check_list(std::string_view value) {
    const auto list = SecurityList::parse(value);
    const auto count = count_mechanisms(value);
    require(list.has_value() == count.has_value(), "both readers of a security list agree");
    if (!list)
        return require(list.error().reaction == Reaction::reject && !list.error().text.empty(),
                       "a malformed list has a reason");
    require(list->mechanisms().size() == *count, "both readers count the same mechanisms");
    require(!difference(*list, *list), "a list equals itself");
    for (const Mechanism& mechanism : list->mechanisms()) (void)mechanism.ipsec_3gpp();
    const auto again = SecurityList::parse(list->to_string());
    require(again.has_value() || list->to_string().size() > kMaxSecurityList, "a written list can be read");
    if (again)
        require(!difference(*list, *again) && again->to_string() == list->to_string(),
                "writing and reading lose nothing");
}

inline void check_fields(const Message& message) {
    const std::string_view bytes = message.bytes();
    std::size_t at = message.fields_begin();
    for (std::size_t i = 0; i < message.field_count(); ++i) {
        const HeaderField field = message.field(i);
        require(field.begin == at && field.end > field.begin, "fields follow each other without a gap");
        require(bytes.substr(field.begin, field.name.size()) == field.name && !field.name.empty(),
                "a field begins with its name");
        require(field.id == header_id(field.name), "a field's id is its name's");
        inside(field.value, bytes.substr(field.begin, field.end - field.begin), "a value lies inside its field");
        require(bytes[field.end - 1] == '\n', "a field ends with its line");
        require(bytes.substr(field.begin, field.end - field.begin).find('\0') == std::string_view::npos,
                "no NUL in a field");
        check_typed_values(field);
        at = field.end;
    }
    require(at == message.fields_end(), "the last field ends where the section ends");
}

inline void check_edits(const Message& message) {
    const std::string as_it_came = Edit(message).to_string();
    require(is_one_frame(as_it_came) && as_it_came.ends_with(message.body()),
            "what is sent on is one message for a stream, with the body that was read");
    const auto length = message.find(HeaderId::content_length);
    const HeaderField field = length ? message.field(*length) : HeaderField{};
    const bool is_plain = length && message.bytes().substr(field.begin, field.end - field.begin) ==
                                        std::string(field.name) + ": " + std::to_string(message.body().size()) + "\r\n";
    require(!is_plain || as_it_came == message.bytes(), "without edits the bytes stay as they are");
    Edit edit(message);
    edit.prepend("X-First: 1");
    edit.remove_all(HeaderId::security_client);
    edit.remove_option_tag(HeaderId::require, "sec-agree");
    edit.append("X-Last: 1");
    edit.set_body("ab");
    const std::string text = edit.to_string();
    const auto again = Message::parse(std::string_view(text));
    if (text.size() > kMaxMessage || message.field_count() + 3 > kMaxHeaderFields) return;
    require(again.has_value(), "an edited message can be read");
    require(!again->has(HeaderId::security_client) && again->body() == "ab", "edits are there");
    require(!has_option_tag(*again, HeaderId::require, "sec-agree"), "an option tag that was taken out is gone");
    require(again->field(0).name == "X-First" && again->field(again->field_count() - 1).value.size() == 1,
            "insertions are in place");
}

inline void check_message(std::string_view bytes) {
    const auto parsed = Message::parse(bytes);
    if (!parsed) {
        require(!parsed.error().reason.empty() && parsed.error().offset <= bytes.size(),
                "an error has a reason and a place");
        const auto answer = make_bad_request(bytes, parsed.error());
        require(answer.has_value() == parsed.error().answerable, "what is answerable can be answered");
        const auto begins = [&](std::string_view line) { return answer->starts_with(line); };
        if (answer)
            require(
                begins("SIP/2.0 400 ") || begins("SIP/2.0 501 ") || begins("SIP/2.0 505 ") || begins("SIP/2.0 513 "),
                "… with 400, 501, 505 or 513");
        return;
    }
    const Message& message = *parsed;
    inside(message.bytes(), bytes, "a message lies inside the bytes");
    inside(message.body(), message.bytes(), "a body lies inside the message");
    require(message.is_request() != message.is_response(), "a message is one of two things");
    require(via_count(message) >= 1 && message.has(HeaderId::cseq), "mandatory fields are there");
    require(message.cseq() <= 0x7fffffff && !message.method_name().empty(), "CSeq was read");
    if (message.method() != Method::other)
        require(to_string(message.method()) == message.method_name(), "a known method is its name");
    check_fields(message);
    check_edits(message);
    for (const HeaderId id : {HeaderId::security_client, HeaderId::security_server, HeaderId::security_verify})
        message.for_each(id, [](const HeaderField& field) { check_list(field.value); });
    if (message.is_response()) return;
    const std::string response = make_response(message, 494, "Security Agreement Required", "t");
    const auto answer = Message::parse(std::string_view(response));
    if (answer)
        require(answer->status() == 494 && via_count(*answer) == via_count(message), "a response carries every Via");
}

/// Everything that comes out of a framer, with lengths, so that two feedings can be compared.
inline std::string drain(Framer& framer) {
    std::string out;
    while (true) {
        const FrameResult result = framer.next();
        if (result.frame == Frame::need_more) return out;
        out.append(std::to_string(static_cast<int>(result.frame)))
            .append(":")
            .append(std::to_string(result.bytes.size()))
            .append(":");
        out.append(result.bytes).append(result.reason);
        if (result.frame == Frame::error) return out;
    }
}

inline void check_framing(std::string_view bytes) {
    Framer whole;
    require(whole.feed(bytes) == (bytes.size() <= 2 * kMaxMessage), "a framer takes two messages' worth");
    const std::string expected = drain(whole);
    if (expected.find("keep-alives") != std::string::npos) return;  // a flood is only a flood when it comes at once
    Framer single;
    std::string got;
    for (const char c : bytes) {
        if (!single.feed({&c, 1})) break;
        got += drain(single);
    }
    require(got == expected, "octet by octet or at once, the same comes out");
}

}  // namespace gmgate::sip::invariants
