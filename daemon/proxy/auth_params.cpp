#include "daemon/proxy/auth_params.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "sip/headers.h"

namespace gmgate::daemon {

namespace {

constexpr std::string_view kLws = " \t\r\n";

/// One comma-separated element of a credentials or challenge value, as offsets in the value.
struct Element {
    std::size_t comma = 0;       ///< of the comma before it; the element's begin when it is the first
    std::size_t name_begin = 0;
    std::size_t end = 0;         ///< after its last octet that is no white space
    std::string_view name;
    std::string_view value;      ///< raw, "" without '='
    bool has_prefix = false;     ///< the scheme, or anything else, stands before the name
};

std::vector<Element> elements_of(std::string_view text) {
    std::vector<Element> elements;
    std::size_t begin = 0;
    while (begin <= text.size()) {
        bool quoted = false;
        std::size_t end = begin;
        std::size_t equals = std::string_view::npos;
        for (; end < text.size(); ++end) {
            const char c = text[end];
            if (quoted) {
                if (c == '\\') ++end;
                else if (c == '"') quoted = false;
            } else if (c == '"') {
                quoted = true;
            } else if (c == ',') {
                break;
            } else if (c == '=' && equals == std::string_view::npos) {
                equals = end;
            }
        }
        end = std::min(end, text.size());

        Element e;
        e.comma = begin == 0 ? 0 : begin - 1;
        const std::size_t last = text.substr(0, end).find_last_not_of(kLws);
        e.end = last == std::string_view::npos || last + 1 < begin ? begin : last + 1;
        const std::size_t name_limit = std::min(equals, e.end);
        const std::string_view before = sip::trim(text.substr(begin, name_limit - begin));
        const std::size_t blank = before.find_last_of(kLws);
        e.name = blank == std::string_view::npos ? before : before.substr(blank + 1);
        e.has_prefix = blank != std::string_view::npos;
        e.name_begin = e.name.empty() ? begin : static_cast<std::size_t>(e.name.data() - text.data());
        if (equals != std::string_view::npos && equals < e.end) e.value = sip::trim(text.substr(equals + 1, e.end - equals - 1));
        elements.push_back(e);
        begin = end + 1;
    }
    return elements;
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
    return std::ranges::any_of(names, [&](std::string_view n) { return sip::same_token(n, name); });
}

/// `name` at a word boundary, then LWS, then '='. Quotes are ignored on purpose. Base64 of a nonce cannot match: its octets,
/// '/' and '+' included, are no boundary.
bool shows_name(std::string_view text, std::string_view name) {
    for (std::size_t i = 0; i + name.size() <= text.size(); ++i) {
        if (!sip::same_token(text.substr(i, name.size()), name)) continue;
        if (i > 0 && std::string_view(" \t\r\n,\";'=").find(text[i - 1]) == std::string_view::npos) continue;
        const std::size_t after = text.find_first_not_of(kLws, i + name.size());
        if (after != std::string_view::npos && text[after] == '=') return true;
    }
    return false;
}

struct Cut {
    std::size_t begin, end;
};

/// The stretches of the value to cut so that what stays is still a comma list.
std::vector<Cut> cuts_for(const std::vector<Element>& elements, std::initializer_list<std::string_view> names,
                          std::vector<std::string_view>* taken) {
    std::vector<Cut> cuts;
    for (std::size_t i = 0; i < elements.size(); ++i) {
        if (!is_one_of(elements[i].name, names)) continue;
        std::size_t last = i;  // a run of elements to remove; one with a prefix begins a run of its own
        while (last + 1 < elements.size() && is_one_of(elements[last + 1].name, names) && !elements[last + 1].has_prefix) ++last;
        if (taken != nullptr)
            for (std::size_t k = i; k <= last; ++k) taken->push_back(sip::unquote(elements[k].value));
        const bool is_front = i == 0 || elements[i].has_prefix;
        const bool has_next = last + 1 < elements.size() && !elements[last + 1].has_prefix;
        if (is_front && has_next) cuts.push_back({elements[i].name_begin, elements[last + 1].name_begin});
        else cuts.push_back({is_front ? elements[i].name_begin : elements[i].comma, elements[last].end});
        i = last;
    }
    return cuts;
}

/// Cleans one field, or takes it away as a whole.
void clean_field(sip::Edit& edit, const sip::Message& message, std::size_t index,
                 std::initializer_list<std::string_view> names, std::vector<std::string_view>* taken) {
    const std::string_view value = message.field(index).value;
    const auto offset = static_cast<std::size_t>(value.data() - message.bytes().data());
    const std::vector<Cut> cuts = cuts_for(elements_of(value), names, taken);

    std::size_t begin = 0;
    bool ambiguous = false;
    const auto look = [&](std::string_view kept) {
        ambiguous |= std::ranges::any_of(names, [&](std::string_view name) { return shows_name(kept, name); });
    };
    for (const Cut& cut : cuts) {
        look(value.substr(begin, cut.begin - begin));
        begin = cut.end;
    }
    look(value.substr(begin));
    if (ambiguous) {
        edit.remove_field(index);
        return;
    }
    for (const Cut& cut : cuts) edit.replace(offset + cut.begin, offset + cut.end, {});
}

}  // namespace

void remove_auth_params(sip::Edit& edit, const sip::Message& message, sip::HeaderId id, std::initializer_list<std::string_view> names,
                        std::vector<std::string_view>* taken) {
    for (auto index = message.find(id); index; index = message.find(id, *index + 1)) clean_field(edit, message, *index, names, taken);
}

void write_credentials(sip::Edit& edit, const sip::Message& message, sip::HeaderId id,
                       const sip::Credentials& credentials, std::string_view indicator) {
    std::string value = credentials.to_string(indicator);
    for (auto index = message.find(id); index; index = message.find(id, *index + 1)) {
        if (value.empty()) {
            edit.remove_field(*index);
            continue;
        }
        edit.replace_value(*index, std::move(value));
        value.clear();
    }
}

}  // namespace gmgate::daemon
