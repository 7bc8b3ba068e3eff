#include "daemon/proxy/emergency.h"

#include <algorithm>

#include "daemon/proxy/emergency_marks.h"
#include "daemon/rules/dialogs.h"
#include "daemon/rules/identity.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

using sip::HeaderId;

namespace {

// RFC 5031 §4.2: the name is case-insensitive; "urn:service:sos" itself and its sub-services, nothing that merely
// begins like it.
bool is_sos(std::string_view request_uri) {
    constexpr std::string_view kSos = "urn:service:sos";
    if (request_uri.size() < kSos.size() || !sip::same_token(request_uri.substr(0, kSos.size()), kSos)) return false;
    return request_uri.size() == kSos.size() || request_uri[kSos.size()] == '.';
}

}  // namespace

bool is_emergency(std::string_view request_uri, const std::vector<std::string>& numbers) {
    if (is_sos(request_uri)) return true;
    const auto uri = sip::Uri::parse(request_uri);
    if (!uri || !(uri->is_sip() || sip::same_token(uri->scheme, "tel"))) return false;
    std::string number;  // RFC 3966: visual separators do not count; a SIP user part may carry parameters of a tel URI
    for (const char c : uri->user.substr(0, uri->user.find(';')))
        if (std::string_view("-.()").find(c) == std::string_view::npos) number += c;
    return std::ranges::find(numbers, number) != numbers.end();
}

bool is_emergency_request(const sip::Message& request, const std::vector<std::string>& numbers) {
    const bool brings_help = request.method() == sip::Method::invite || request.method() == sip::Method::message;
    return brings_help && is_emergency(request.request_uri(), numbers);
}

bool is_dialled_number(const sip::Message& request, const std::vector<std::string>& numbers) {
    return is_emergency_request(request, numbers) && !is_sos(request.request_uri());
}

namespace {

constexpr std::size_t kLegs = 8, kTargets = 4;  // more forks, or refreshes in one round trip, has no call

bool is_same_target(std::string_view a, std::string_view b) { return a == b || is_same_identity(a, b); }

}  // namespace

const EmergencyLeg* EmergencyDialog::leg(std::string_view tag) const {
    const auto found = std::ranges::find(legs, tag, &EmergencyLeg::tag);
    return tag.empty() || found == legs.end() ? nullptr : &*found;
}

const EmergencyDialog* EmergencyDialogs::at(const sip::Message& message, HeaderId phones_side) const {
    const std::string_view tag = sip::tag_of(message, phones_side);
    if (tag.empty() || dialogs_.empty()) return nullptr;
    const auto found = dialogs_.find({std::string(message.value(HeaderId::call_id)), std::string(tag)});
    return found != dialogs_.end() && found->second.expires > clock_->now() ? &found->second : nullptr;
}

EmergencyDialog* EmergencyDialogs::by_token(std::string_view token) {
    const auto key = by_token_.find(std::string(token));
    const auto found = key == by_token_.end() ? dialogs_.end() : dialogs_.find(key->second);
    return found == dialogs_.end() ? nullptr : &found->second;
}

void EmergencyDialogs::forget_unanswered(EmergencyDialog& dialog) {
    dialog.end = nullptr;
    if (dialog.order == 0) return;
    unanswered_.erase(dialog.order);
    const auto source = unanswered_of_.find(source_prefix(dialog.ue.remote.address));
    if (source != unanswered_of_.end() && source->second.erase(dialog.order) != 0 && source->second.empty())
        unanswered_of_.erase(source);
    dialog.order = 0;
}

void EmergencyDialogs::leave_connection(const EmergencyDialog& dialog) {
    const auto one = connections_.find(dialog.ue.connection);
    if (one != connections_.end()) connections_.erase(one);
}

void EmergencyDialogs::erase(Dialogs::iterator at) {
    forget_unanswered(at->second);
    leave_connection(at->second);
    by_token_.erase(at->second.token);
    dialogs_.erase(at);
}

void EmergencyDialogs::evict(std::uint64_t order) {
    const auto found = dialogs_.find(unanswered_.at(order));
    const auto end = std::move(found->second.end);
    erase(found);
    ++evicted_;
    if (end) end();
}

void EmergencyDialogs::expire() {
    const TimePoint now = clock_->now();
    for (auto next = dialogs_.begin(); next != dialogs_.end();) {
        const auto one = next++;
        if (one->second.expires <= now) erase(one);
    }
}

bool EmergencyDialogs::make_room(const Address& source) {
    if (const auto of = unanswered_of_.find(source);
        of != unanswered_of_.end() && of->second.size() >= limits_.unanswered_per_source)
        evict(*of->second.begin());
    if (dialogs_.size() >= limits_.calls) expire();
    if (dialogs_.size() >= limits_.calls && !unanswered_.empty()) evict(unanswered_.begin()->first);
    return dialogs_.size() < limits_.calls;
}

const EmergencyDialog* EmergencyDialogs::add(EmergencyDialog dialog, const Address& source) {
    dialog.expires = clock_->now() + lifetime_;
    dialog.order = ++last_order_;
    Key key{dialog.call_id, dialog.ue_tag};
    if (const auto stale = dialogs_.find(key); stale != dialogs_.end()) erase(stale);
    by_token_[dialog.token] = key;
    unanswered_[dialog.order] = key;
    unanswered_of_[source].insert(dialog.order);
    connections_.insert(dialog.ue.connection);
    return &dialogs_.emplace(std::move(key), std::move(dialog)).first->second;
}

const EmergencyDialog* EmergencyDialogs::open(const sip::Message& request, const sip::Flow& ue) {
    if (const EmergencyDialog* known = find(request)) return known;
    const Address source = source_prefix(ue.remote.address);
    if (!make_room(source)) return nullptr;
    EmergencyDialog dialog;
    dialog.token = emergency_token(ue);
    dialog.call_id = std::string(request.value(HeaderId::call_id));
    dialog.ue_tag = std::string(sip::tag_of(request, HeaderId::from));
    dialog.asked_for = std::string(request.request_uri());
    dialog.ue = ue;
    return add(std::move(dialog), source);
}

bool EmergencyDialogs::revive(EmergencyDialog dialog) {
    if (EmergencyDialog* known = by_token(dialog.token); known != nullptr && known->expires > clock_->now()) {
        EmergencyLeg& shown = dialog.legs.front();
        const auto leg = std::ranges::find(known->legs, shown.tag, &EmergencyLeg::tag);
        if (leg == known->legs.end()) {
            if (known->legs.size() < kLegs) known->legs.push_back(std::move(shown));
            return false;
        }
        if (leg->route.empty()) leg->route = std::move(shown.route);
        if (leg->targets.empty()) leg->targets = std::move(shown.targets);
        return false;
    }
    const auto same = dialogs_.find({dialog.call_id, dialog.ue_tag});
    const Address source = source_prefix(dialog.ue.remote.address);
    if ((same != dialogs_.end() && same->second.expires > clock_->now()) || !make_room(source)) return false;
    add(std::move(dialog), source);
    return true;
}

const EmergencyDialog* EmergencyDialogs::find(const sip::Message& request) {
    const EmergencyDialog* known = at(request, HeaderId::from);
    if (known == nullptr) return nullptr;
    EmergencyDialog* dialog = by_token(known->token);
    dialog->expires = clock_->now() + lifetime_;
    return dialog;
}

const EmergencyDialog* EmergencyDialogs::find_by_token(std::string_view token) const {
    const auto key = by_token_.find(std::string(token));
    if (key == by_token_.end()) return nullptr;
    const auto found = dialogs_.find(key->second);
    return found == dialogs_.end() || found->second.expires <= clock_->now() ? nullptr : &found->second;
}

bool EmergencyDialogs::permits(const sip::Message& request) const {
    const EmergencyDialog* dialog = at(request, HeaderId::from);
    if (dialog == nullptr || !is_call_method(request.method())) return false;
    const EmergencyLeg* leg = dialog->leg(sip::tag_of(request, HeaderId::to));
    if (leg == nullptr) return false;
    const std::string_view uri = request.request_uri();
    return uri == dialog->asked_for ||
           std::ranges::any_of(leg->targets, [uri](const std::string& target) { return is_same_target(target, uri); });
}

bool EmergencyDialogs::permits_on(const sip::Message& request, const sip::Flow& flow) const {
    if (!sip::is_reliable(flow.transport) || !permits(request)) return false;
    const EmergencyDialog* dialog = at(request, HeaderId::from);
    return sip::is_reliable(dialog->ue.transport) && dialog->ue.connection == flow.connection;
}

bool EmergencyDialogs::covers(const sip::Message& message) const {
    for (const auto& [phones, others] :
         {std::pair(HeaderId::from, HeaderId::to), std::pair(HeaderId::to, HeaderId::from)})
        if (const EmergencyDialog* dialog = at(message, phones);
            dialog != nullptr && dialog->leg(sip::tag_of(message, others)) != nullptr)
            return true;
    return false;
}

void EmergencyDialogs::learn(std::string_view token, const sip::Message& message, std::vector<std::string> route) {
    EmergencyDialog* dialog = by_token(token);
    const std::string_view tag = sip::tag_of(message, message.is_response() ? HeaderId::to : HeaderId::from);
    if (dialog == nullptr || tag.empty()) return;
    auto leg = std::ranges::find(dialog->legs, tag, &EmergencyLeg::tag);
    if (leg == dialog->legs.end()) {
        if (dialog->legs.size() >= kLegs) dialog->legs.erase(dialog->legs.begin());
        leg = dialog->legs.insert(dialog->legs.end(), {std::string(tag), {}, {}});
    }
    if (!route.empty()) leg->route = std::move(route);
    const auto contact = sip::NameAddr::parse(message.value(HeaderId::contact));
    if (!contact) return;
    std::erase(leg->targets, contact->uri);
    leg->targets.emplace(leg->targets.begin(), contact->uri);
    if (leg->targets.size() > kTargets) leg->targets.pop_back();
}

void EmergencyDialogs::stays_at(std::string_view token, const Target& hop) {
    if (EmergencyDialog* dialog = by_token(token)) dialog->hop = hop;
}

void EmergencyDialogs::answered(std::string_view token) {
    if (EmergencyDialog* dialog = by_token(token)) forget_unanswered(*dialog);
}

void EmergencyDialogs::on_evicted(std::string_view token, std::function<void()> end) {
    if (EmergencyDialog* dialog = by_token(token); dialog != nullptr && dialog->order != 0)
        dialog->end = std::move(end);
}

void EmergencyDialogs::moved(std::string_view token, const sip::Flow& ue) {
    EmergencyDialog* dialog = by_token(token);
    if (dialog == nullptr) return;
    leave_connection(*dialog);
    dialog->ue = ue;
    connections_.insert(ue.connection);
}

void EmergencyDialogs::close(std::string_view token) {
    const auto key = by_token_.find(std::string(token));
    if (key == by_token_.end()) return;
    if (const auto found = dialogs_.find(key->second); found != dialogs_.end()) erase(found);
}

}  // namespace gmgate::daemon
