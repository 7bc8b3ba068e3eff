#include "reg_notifier.h"

#include "../common/crypto.h"
#include "../common/text.h"

#include <nlohmann/json.hpp>

namespace gmgate::peers {
namespace {

constexpr std::uint32_t kDefaultSubscription = 600000;

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

std::string contact_element(const Binding& binding, std::size_t number, bool active) {
    const auto left = std::chrono::ceil<std::chrono::seconds>(binding.expires - Clock::now()).count();
    const std::string instance = binding.instance.substr(0, binding.instance.find('#'));
    std::string text = fmt::format(R"(<contact id="c{}" state="{}" event="{}")", number,
                                   active ? "active" : "terminated", active ? "registered" : "deactivated");
    if (active) text += fmt::format(R"( expires="{}")", left);
    text += fmt::format("><uri>{}</uri>", escaped(binding.contact));
    if (!instance.empty())
        text += fmt::format(R"(<unknown-param name="+sip.instance">"{}"</unknown-param>)", escaped(instance));
    return text + "</contact>";
}

}  // namespace

void RegNotifier::subscribe(const SipMessage& request, const Origin& origin) {
    const auto known = subscriptions_.find(request.call_id());
    const bool initial = request.tag("To").empty();
    User* user = known != subscriptions_.end() ? known->second.user : users_.by_aor(request.uri());
    if (!user || (!initial && known == subscriptions_.end()))
        return link_.respond(SipMessage::response_to(request, initial ? 404 : 481, "", random_token()), origin);
    const auto expires = to_number<std::uint32_t>(request.get("Expires")).value_or(kDefaultSubscription);
    SipMessage response = SipMessage::response_to(request, 200, "", random_token());
    response.add("Expires", std::to_string(expires));
    response.add("Contact", fmt::format("<sip:{}@{}>", kUser, origin.local.to_string()));
    for (const std::string& route : request.list("Record-Route")) response.add("Record-Route", route);
    link_.respond(response, origin);
    Subscription& subscription = subscriptions_[request.call_id()];
    if (initial) {
        subscription.user = user;
        subscription.aor = request.uri();
        subscription.call_id = request.call_id();
        subscription.our_party = response.get("To");
        subscription.their_party = request.get("From");
        subscription.route = request.list("Record-Route");
    }
    subscription.target = request.uri_of("Contact");
    log_.write({{"event", "subscribed"}, {"impi", user->impi}, {"aor", subscription.aor}, {"expires", expires}});
    const bool is_over = expires == 0 || !end_each_.empty();
    notify(subscription, {},
           expires == 0 ? "terminated;reason=timeout"
           : is_over    ? "terminated;" + end_each_
                        : "active");
    if (is_over) subscriptions_.erase(request.call_id());
}

bool RegNotifier::take_response(const SipMessage& response) {
    const auto known = subscriptions_.find(response.call_id());
    if (!response.get("CSeq").ends_with(" NOTIFY") || known == subscriptions_.end()) return false;
    if (response.status() == 481) {
        log_.write({{"event", "subscription_gone"}, {"impi", known->second.user->impi}});
        subscriptions_.erase(known);
    }
    return true;
}

void RegNotifier::notify(Subscription& subscription, const std::vector<Binding>& ended, std::string_view state) {
    const auto& live = subscription.user->live_bindings();
    std::string contacts;
    std::size_t number = 0;
    for (const Binding& binding : live) contacts += contact_element(binding, ++number, true);
    for (const Binding& binding : ended) contacts += contact_element(binding, ++number, false);
    send(subscription, state, "full",
         fmt::format(R"(<registration aor="{}" id="r1" state="{}">{}</registration>)", escaped(subscription.aor),
                     live.empty() ? "terminated" : "active", contacts));
}

void RegNotifier::send(Subscription& subscription, std::string_view state, std::string_view kind,
                       std::string registration) {
    SipMessage request = SipMessage::request("NOTIFY", subscription.target);
    const auto target = SipUri::parse(subscription.route.empty()
                                          ? subscription.target
                                          : NameAddr::parse(subscription.route.front()).value_or(NameAddr{}).uri);
    const auto to = target ? Endpoint::parse(target->host, 5060) : fail("no target");
    if (!to) return log_.write({{"event", "error"}, {"text", "NOTIFY: " + to.error().text}});
    const Endpoint hop = to->with_port(target->port != 0 ? target->port : 5060);
    const auto local = link_.address_towards(hop);
    if (!local) return;
    Via via{"UDP", local->host(), local->port(), {}};
    via.parameters.set("branch", "z9hG4bK" + random_token());
    request.add("Via", via.to_string());
    for (const std::string& route : subscription.route) request.add("Route", route);
    request.add("Max-Forwards", "70");
    request.add("From", subscription.our_party);
    request.add("To", subscription.their_party);
    request.add("Call-ID", subscription.call_id);
    request.add("CSeq", fmt::format("{} NOTIFY", ++subscription.cseq));
    request.add("Contact", fmt::format("<sip:{}@{}>", kUser, local->to_string()));
    request.add("Event", "reg");
    request.add("Subscription-State", std::string(state));
    request.add("Content-Type", "application/reginfo+xml");
    request.body = fmt::format(
        R"(<?xml version="1.0"?><reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="{}" state="{}">{}</reginfo>)",
        subscription.version++, kind, registration);
    link_.send(request, false, hop);
}

void RegNotifier::end_former_contacts() {
    for (auto& [call_id, subscription] : subscriptions_) {
        std::string contacts;
        std::size_t number = 100;
        for (Binding binding : subscription.user->live_bindings()) {
            const std::string uri = binding.contact;
            binding.contact = uri + ";sos";
            contacts += contact_element(binding, ++number, false);
            if (auto moved = SipUri::parse(uri)) {
                moved->host = "192.0.2.99";
                binding.contact = moved->to_string();
            }
            contacts += contact_element(binding, ++number, false);
        }
        log_.write({{"event", "former_contacts_ended"}, {"impi", subscription.user->impi}});
        send(subscription, "active", "partial",
             fmt::format(R"(<registration aor="{}" id="r1" state="active">{}</registration>)",
                         escaped(subscription.aor), contacts));
    }
}

void RegNotifier::deregister(User& user) {
    const std::vector<Binding> ended = std::exchange(user.bindings, {});
    if (ended.empty()) return;
    log_.write({{"event", "deregistered_by_network"}, {"impi", user.impi}});
    for (auto& [call_id, subscription] : subscriptions_)
        if (subscription.user == &user) notify(subscription, ended);
}

void RegNotifier::deregister_all() {
    users_.for_each([this](User& user) { deregister(user); });
}

}  // namespace gmgate::peers
