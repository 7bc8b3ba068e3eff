#include "daemon/proxy/emergency.h"

#include <algorithm>

#include "base/random.h"
#include "sip/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

bool is_emergency(std::string_view request_uri, const std::vector<std::string>& numbers) {
    // RFC 5031 §4.2: the name is case-insensitive; "urn:service:sos" itself and its sub-services, nothing that merely begins like it.
    constexpr std::string_view kSos = "urn:service:sos";
    if (request_uri.size() >= kSos.size() && sip::same_token(request_uri.substr(0, kSos.size()), kSos))
        return request_uri.size() == kSos.size() || request_uri[kSos.size()] == '.';
    const auto uri = sip::Uri::parse(request_uri);
    if (!uri || !(uri->is_sip() || sip::same_token(uri->scheme, "tel"))) return false;
    std::string number;  // RFC 3966: visual separators do not count; a SIP user part may carry parameters of a tel URI
    for (const char c : uri->user.substr(0, uri->user.find(';')))
        if (std::string_view("-.()").find(c) == std::string_view::npos) number += c;
    return std::ranges::find(numbers, number) != numbers.end();
}

std::map<EmergencyDialogs::Key, EmergencyDialog>::const_iterator EmergencyDialogs::locate(const sip::Message& message) const {
    const std::string call_id(message.value(HeaderId::call_id));
    for (const HeaderId side : {HeaderId::from, HeaderId::to}) {
        const std::string_view tag = sip::tag_of(message, side);
        if (tag.empty()) continue;
        const auto at = dialogs_.find({call_id, std::string(tag)});
        if (at != dialogs_.end() && at->second.expires > clock_->now()) return at;
    }
    return dialogs_.end();
}

void EmergencyDialogs::expire() {
    const TimePoint now = clock_->now();
    std::erase_if(dialogs_, [&](const auto& entry) {
        if (entry.second.expires > now) return false;
        by_token_.erase(entry.second.token);
        return true;
    });
}

const EmergencyDialog* EmergencyDialogs::open(const sip::Message& request, const sip::Flow& ue) {
    if (const EmergencyDialog* known = find(request)) return known;
    if (dialogs_.size() >= limit_) expire();
    if (dialogs_.size() >= limit_) return nullptr;
    EmergencyDialog dialog;
    dialog.token = "sos" + random_hex(12);
    dialog.call_id = std::string(request.value(HeaderId::call_id));
    dialog.ue_tag = std::string(sip::tag_of(request, HeaderId::from));
    dialog.ue = ue;
    dialog.expires = clock_->now() + lifetime_;
    Key key{dialog.call_id, dialog.ue_tag};
    by_token_[dialog.token] = key;
    return &dialogs_.insert_or_assign(std::move(key), std::move(dialog)).first->second;
}

const EmergencyDialog* EmergencyDialogs::find(const sip::Message& message) {
    const auto at = locate(message);
    if (at == dialogs_.end()) return nullptr;
    EmergencyDialog& dialog = dialogs_.at(at->first);
    dialog.expires = clock_->now() + lifetime_;
    return &dialog;
}

const EmergencyDialog* EmergencyDialogs::find_by_token(std::string_view token) const {
    const auto key = by_token_.find(std::string(token));
    if (key == by_token_.end()) return nullptr;
    const auto at = dialogs_.find(key->second);
    return at == dialogs_.end() || at->second.expires <= clock_->now() ? nullptr : &at->second;
}

void EmergencyDialogs::moved(std::string_view token, const sip::Flow& ue) {
    const auto key = by_token_.find(std::string(token));
    if (key == by_token_.end()) return;
    if (const auto at = dialogs_.find(key->second); at != dialogs_.end()) at->second.ue = ue;
}

bool EmergencyDialogs::covers(const sip::Message& message) const { return locate(message) != dialogs_.end(); }

void EmergencyDialogs::close(std::string_view token) {
    const auto key = by_token_.find(std::string(token));
    if (key == by_token_.end()) return;
    dialogs_.erase(key->second);
    by_token_.erase(key);
}

}  // namespace gmgate::daemon
