#include "tests/differential/sofia_lists.h"

#include <strings.h>

#include <sofia-sip/msg.h>
#include <sofia-sip/sip.h>
#include <sofia-sip/sip_header.h>

namespace gmgate::differential {
namespace {

std::vector<Entry> entries_of(const sip_security_client_t* list) {
    std::vector<Entry> out;
    for (; list; list = list->sa_next) {
        Entry& entry = out.emplace_back();
        entry.name = list->sa_mec;
        if (list->sa_q) entry.q = list->sa_q;
        for (const msg_param_t* p = list->sa_params; p && *p; ++p) {
            const std::string_view text(*p);
            const auto equal = text.find('=');
            const bool has_value = equal != std::string_view::npos;
            entry.parameters.push_back({.name = std::string(text.substr(0, equal)),
                                        .value = has_value ? std::string(text.substr(equal + 1)) : std::string(),
                                        .has_value = has_value});
        }
    }
    return out;
}

}  // namespace

bool equal_names(std::string_view a, std::string_view b) {
    return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::vector<std::string> Entry::values(std::string_view parameter_name) const {
    std::vector<std::string> out;
    for (const Parameter& p : parameters)
        if (equal_names(p.name, parameter_name)) out.push_back(p.value);
    return out;
}

std::optional<std::vector<Entry>> read_with_sofia(const std::string& value) {
    su_home_t home[1] = {SU_HOME_INIT(home)};
    su_home_init(home);
    const auto* list = sip_security_client_make(home, value.c_str());
    std::optional<std::vector<Entry>> out;
    if (list) out = entries_of(list);
    su_home_deinit(home);
    return out;
}

std::optional<std::vector<Entry>> read_message_with_sofia(const std::string& message) {
    msg_t* parsed = msg_make(sip_default_mclass(), 0, message.data(), static_cast<ssize_t>(message.size()));
    if (!parsed) return std::nullopt;
    const sip_t* sip = sip_object(parsed);
    std::optional<std::vector<Entry>> out;
    if (sip && !sip->sip_error) out = entries_of(sip->sip_security_client);
    msg_destroy(parsed);
    return out;
}

}  // namespace gmgate::differential
