#include "tests/conformance/runner.h"

#include <algorithm>
#include <regex>

#include <fmt/format.h>

#include "daemon/config.h"
#include "daemon/proxy/unprotected_port.h"
#include "sip/credentials.h"
#include "sip/digest.h"
#include "sip/headers.h"

namespace gmgate::test {
namespace {

// The Security-Client of the feature text and the AKA challenge of TS 35.208 set 1.
constexpr const char* kOffer =
    "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, "
    "ipsec-3gpp;alg= hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, tls";
constexpr const char* kCk = "b40ba9a3c58b2a05bbf0d987b21bf8cb";
constexpr const char* kIk = "f769bcd751044604127672711c6d3441";
constexpr const char* kNonce = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=";
constexpr const char* kPrivateIdentity = "262073900320132@ims.mnc007.mcc262.3gppnetwork.org";

std::string joined(const sip::Message& message, sip::HeaderId id, const std::string& name) {
    std::string all;
    for (std::size_t i = 0; i < message.field_count(); ++i) {
        const auto field = message.field(i);
        if (id == sip::HeaderId::other ? !sip::same_token(field.name, name) : field.id != id) continue;
        all += (all.empty() ? "" : ", ") + std::string(field.value);
    }
    return all;
}

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::size_t at = 0;
    for (auto end = text.find(separator); end != std::string::npos; at = end + 1, end = text.find(separator, at)) parts.push_back(text.substr(at, end - at));
    parts.push_back(text.substr(at));
    return parts;
}

bool takes_prefix(std::string& text, std::string_view prefix) {
    if (!text.starts_with(prefix)) return false;
    text.erase(0, prefix.size());
    return true;
}

// Every integrity-protected of the Authorization header, in any spelling, as written: "no", tls-pending; "absent" when there is none.
std::string indicator_of(const std::string& request) {
    const auto message = sip::Message::parse(std::string_view(request));
    if (!message) return "nothing";
    std::string found;
    message->for_each(sip::HeaderId::authorization, [&](const sip::HeaderField& field) {
        const auto digest = sip::DigestParams::parse(field.value);
        if (!digest) return;
        for (const auto& p : digest->all())
            if (sip::same_token(p.name, "integrity-protected")) found += (found.empty() ? "" : " and ") + std::string(p.raw_value);
    });
    return found.empty() ? "absent" : found;
}

}  // namespace

std::string with_parameters(std::string list, const std::vector<std::string>& changes) {
    for (const auto& change : changes) {
        const auto equals = change.find('=');
        if (change.starts_with('-')) list = std::regex_replace(list, std::regex(fmt::format(";\\s*{}\\s*(=[^;,]*)?(?=[;,]|$)", change.substr(1))), "");
        else list = std::regex_replace(list, std::regex(fmt::format("\\b{}\\s*=[^;,]*", change.substr(0, equals))), change);
    }
    return list;
}

std::vector<std::string> Runner::run(const Case& c) {
    *this = Runner(folder_);
    case_ = &c;
    config_ = RegisterWorld::usual_config();
    try {
        for (const auto& block : c.blocks) step(c, block);
        flush();
        line_ = c.line;
        if (expectations_ == 0) problem("the case expects nothing");
    } catch (const std::exception& e) {
        problem(e.what());
    }
    return problems_;
}

void Runner::problem(const std::string& what) { problems_.push_back(fmt::format("{}:{}: {}", case_->file.filename().string(), line_, what)); }

RegisterWorld& Runner::world() {
    if (!world_) world_ = std::make_unique<RegisterWorld>(config_);
    return *world_;
}

void Runner::step(const Case& c, const Block& block) {
    case_ = &c;
    line_ = block.line;
    const auto word = block.word();
    if (word == "policy") set_policy(block);
    else if (word == "given") for (const auto& name : lines_of(block.text)) include(name);
    else if (block.info == "sip core") world().core_answers.push_back(fill(block.text));
    else if (word == "sip") flush(), say(block);
    else if (word == "wait") flush(), transaction_ = nullptr, answer_.clear(), core_.clear(), world().wait(std::chrono::seconds{std::stol(block.text)});
    else if (word == "close") flush(), world().parts().transports.close(flow_of("sip " + lines_of(block.text).front()).connection, true), world().settle(), world().loop.run_for(std::chrono::milliseconds{5});
    else if (word == "lists") lists_ = lines_of(block.text);
    else if (word == "expect") expect(block);
    else problem("no such block: " + word);
}

// Lines of the sip-interface as they stand in gmgate.toml, then perhaps [ims-aka-profile] and lines of the profile.
void Runner::set_policy(const Block& block) {
    if (world_) return problem("the policy must stand before the first message");
    std::string interface, profile;
    auto* part = &interface;
    for (const auto& line : lines_of(block.text)) {
        if (line == "[ims-aka-profile]") part = &profile;
        else *part += line + "\n";
    }
    if (interface.find("sec-agree-feature") == std::string::npos) interface += "sec-agree-feature = true\n";
    // A TLS port is demanded by a preference with tls and refused by one without.
    const bool has_tls = std::regex_search(interface, std::regex("sec-agree-pref = \".*tls"));
    const auto text = fmt::format("[core]\nlisten = \"127.0.0.1:5070\"\nnext-hop = \"127.0.0.1:5080\"\nvisited-network-id = \"visited.example\"\n"
                                  "[[ims-aka-profile]]\nname = \"volte\"\nprotected-server-port = [6100, 6101]\nstart-protected-client-port = 6200\n"
                                  "end-protected-client-port = 6203\n{}\n[[tls-profile]]\nname = \"tls\"\nend-entity-cert = [\"c\"]\nprivate-key = [\"k\"]\n[[sip-interface]]\nrealm-id = \"access\"\n{}\n"
                                  "[[sip-interface.sip-ports]]\naddress = \"127.0.0.1\"\nims-aka-profile = \"volte\"\n{}", profile, interface,
                                  has_tls ? "[[sip-interface.sip-ports]]\naddress = \"127.0.0.1\"\nport = 5061\ntransport-protocol = [\"TLS\"]\ntls-profile = \"tls\"\n" : "");
    auto config = daemon::parse_config(text, "policy");
    if (!config) return problem(config.error().text);
    config_ = std::move(*config);
}

void Runner::include(const std::string& name) {
    const auto* outer = case_;
    const auto cases = read_cases(folder_ / "given" / (name + ".md"));
    for (const auto& c : cases)
        for (const auto& block : c.blocks) step(c, block);
    flush();
    case_ = outer;
}

// ------------------------------------------------------------------------------------------------------------------- messages

// {verify}: the Security-Server that the phone got last; {client}: the Security-Client that it sent last; {offer}: the feature text's.
// Each may change parameters: {verify spi-s=4711 port-s=9999}, {offer -mod}.
std::string Runner::fill(const std::string& text) const {
    static const std::regex placeholder("\\{([a-z]+)((?: [^ }]+)*)\\}");
    std::string out;
    auto at = text.cbegin();
    for (std::sregex_iterator i(text.begin(), text.end(), placeholder), end; i != end; ++i) {
        out.append(at, (*i)[0].first);
        at = (*i)[0].second;
        const auto name = (*i)[1].str();
        auto changes = split((*i)[2].str(), ' ');
        std::erase(changes, "");
        if (name == "verify") out += with_parameters(verify_, changes);
        else if (name == "client") out += with_parameters(client_, changes);
        else if (name == "offer") out += with_parameters(kOffer, changes);
        else if (name == "ck") out += kCk;
        else if (name == "ik") out += kIk;
        else if (name == "nonce") out += kNonce;
        else if (name == "impi") out += kPrivateIdentity;
        else throw std::runtime_error("no such placeholder: " + name);
    }
    return out.append(at, text.cend());
}

// What a case leaves out because it does not matter there; lines in parentheses are remarks.
std::string Runner::complete(const std::string& text, const sip::Flow& flow) const {
    std::string message;
    auto lines = lines_of(text);
    std::erase_if(lines, [](const auto& line) { return line.starts_with('('); });
    if (lines.empty()) throw std::runtime_error("an empty message");
    const auto method = lines.front().substr(0, lines.front().find(' '));
    const auto has = [&](sip::HeaderId id) {
        return std::ranges::any_of(lines.begin() + 1, lines.end(), [&](const auto& line) {
            return line.find(':') != std::string::npos && sip::header_id(sip::trim(line.substr(0, line.find(':')))) == id;
        });
    };
    const auto host = flow.remote.address.to_uri_host();
    const auto own_port = flow.local.port.value >= 6000 ? std::string("1358") : fmt::format("{}", flow.remote.port.value);
    message = lines.front() + "\r\n";
    if (!has(sip::HeaderId::via)) message += fmt::format("Via: SIP/2.0/{} {}:{};branch=z9hG4bKcase{}\r\n", sip::to_string(flow.transport), host, own_port, ++cseq_);
    if (!has(sip::HeaderId::max_forwards)) message += "Max-Forwards: 70\r\n";
    if (!has(sip::HeaderId::from)) message += "From: <sip:user@example>;tag=4fa3\r\n";
    if (!has(sip::HeaderId::to)) message += "To: <sip:user@example>\r\n";
    if (!has(sip::HeaderId::call_id)) message += "Call-ID: apb03a0s09dkjdfglkj49111\r\n";
    if (!has(sip::HeaderId::cseq)) message += fmt::format("CSeq: {} {}\r\n", ++cseq_, method);
    if (method == "REGISTER" && !has(sip::HeaderId::contact)) message += fmt::format("Contact: <sip:{}:{}>;expires=600000\r\n", host, own_port);
    for (std::size_t i = 1; i < lines.size(); ++i)
        if (!lines[i].empty()) message += lines[i] + "\r\n";
    if (!has(sip::HeaderId::content_length)) message += "Content-Length: 0\r\n";
    return message + "\r\n";
}

// "sip ue [temporary|established|old|tls:N|tcp] [from=ADDRESS[:PORT]]": over which set or connection a message comes.
sip::Flow Runner::flow_of(const std::string& info) {
    sip::Flow flow{sip::Transport::udp, {*Address::parse("127.0.0.1"), Port{5060}}, {*Address::parse("127.0.0.9"), Port{5060}}, {}, {}};
    for (auto word : split(info, ' ')) {
        if (word == "sip" || word == "ue" || word == "unprotected") continue;
        if (word == "tcp") {
            flow.transport = sip::Transport::tcp;
            flow.connection = sip::ConnectionId{1000};
        } else if (takes_prefix(word, "tls:")) {
            const Endpoint phone{flow.remote.address, Port{static_cast<std::uint16_t>(40001 + connections_.size())}};
            if (!connections_.contains(word)) connections_[word] = world().tls_connection(phone);
            flow = connections_[word];
        } else if (takes_prefix(word, "from=")) {
            if (const auto endpoint = Endpoint::parse(word)) flow.remote = *endpoint;
            else if (const auto address = Address::parse(word)) flow.remote.address = *address;
            else throw std::runtime_error("no address: " + word);
        } else {
            const daemon::SaSet* found = nullptr;
            for (const auto& owner : world().owners())
                if (to_string(owner.set->state) == word) found = owner.set;
            if (!found) throw std::runtime_error("there is no " + word + " set");
            flow = RegisterWorld::over(*found);
        }
    }
    return flow;
}

void Runner::say(const Block& block) {
    pending_flow_ = flow_of(block.info);
    pending_ = complete(fill(block.text), pending_flow_);
    has_pending_ = true;
    answer_.clear();
    core_.clear();
    verdict_.clear();
    transaction_ = nullptr;
    remember(pending_);
}

void Runner::remember(const std::string& text) {
    sent_ = text;
    const auto message = sip::Message::parse(std::string_view(text));
    if (!message) return;
    const auto client = sip::SecurityList::from(*message, sip::HeaderId::security_client);
    if (client && !client->empty()) client_ = joined(*message, sip::HeaderId::security_client, "");
    const auto credentials = sip::Credentials::read(*message, sip::HeaderId::authorization);
    if (credentials.kind() != sip::Credentials::Kind::ambiguous) impi_ = daemon::impi_of(*message, credentials);
}

void Runner::flush() {
    if (!has_pending_) return;
    has_pending_ = false;
    auto& w = world();
    const auto message = sip::Message::parse(std::string_view(pending_));
    if (!message) return;
    if (message->method() != sip::Method::register_ || message->is_response()) {
        const daemon::EmergencyDialogs dialogs(w.clock);
        verdict_ = to_string(daemon::judge_unprotected(*message, w.config.sip_interfaces.front(), dialogs));
        return;
    }
    core_seen_ = w.core_saw.size();
    transaction_ = w.send(pending_, pending_flow_);
    w.core_answers.clear();
    if (w.core_saw.size() > core_seen_) core_ = w.core_saw.back();
    if (w.core_saw.size() > core_seen_ + 1) problem("the core saw more than one request");
    if (!transaction_->responses.empty()) answer_ = transaction_->responses.back();
    if (const auto parsed = sip::Message::parse(std::string_view(answer_)))
        if (const auto server = joined(*parsed, sip::HeaderId::security_server, ""); parsed->status() == 401 && !server.empty()) verify_ = server;
}

// --------------------------------------------------------------------------------------------------------------- expectations

void Runner::expect(const Block& block) {
    flush();
    line_ = block.line;
    for (const auto& line : lines_of(block.text)) {
        ++line_;
        if (line.empty() || line.starts_with('#')) continue;
        ++expectations_;
        expect_line(fill(line));
    }
}

// One of: "HEADER: value", "HEADER has text", "no HEADER", "without text". False when it is none of them.
bool Runner::expect_message(const std::string& who, const std::string& message, const std::string& rest) {
    const auto parsed = sip::Message::parse(std::string_view(message));
    const auto field = [&](const std::string& name) { return parsed ? joined(*parsed, sip::header_id(name), name) : std::string{}; };
    auto text = rest;
    if (takes_prefix(text, "without ")) {
        if (message.find(text) != std::string::npos) problem(fmt::format("{} holds \"{}\":\n{}", who, text, message));
    } else if (takes_prefix(text, "no ")) {
        if (!field(text).empty()) problem(fmt::format("{} has {}: {}", who, text, field(text)));
    } else if (const auto has = text.find(" has "); has != std::string::npos) {
        const auto name = text.substr(0, has), part = text.substr(has + 5);
        if (field(name).find(part) == std::string::npos) problem(fmt::format("{} has {}: \"{}\", without \"{}\"", who, name, field(name), part));
    } else if (const auto colon = text.find(": "); colon != std::string::npos) {
        const auto name = text.substr(0, colon), value = text.substr(colon + 2);
        if (field(name) != value) problem(fmt::format("{} has {}: \"{}\" instead of \"{}\"", who, name, field(name), value));
    } else {
        return false;
    }
    return true;
}

bool Runner::expect_count(const std::string& word, const std::string& rest) {
    auto& w = world();
    std::map<std::string, std::size_t> counts{{"temporary", 0}, {"established", 0}, {"old", 0}};
    for (const auto& owner : w.owners()) ++counts[std::string(to_string(owner.set->state))];
    counts["sas"] = w.kernel.sas().size();
    counts["spis"] = w.parts().spis.in_use();
    counts["registrations"] = w.parts().table.registration_count();
    const auto at = counts.find(word);
    if (at == counts.end()) return false;
    if (std::to_string(at->second) != rest) problem(fmt::format("{} {} instead of {}", word, at->second, rest));
    return true;
}

void Runner::expect_line(const std::string& line) {
    const auto word = line.substr(0, line.find(' '));
    const auto rest = word.size() == line.size() ? std::string{} : line.substr(word.size() + 1);
    const auto status = answer_.empty() ? std::string("none") : answer_.substr(8, 3);
    const auto records = world().parts().trace.of(impi_);
    if (word == "answer" && (rest == "none" || (rest.size() == 3 && std::isdigit(rest[0])))) {
        if (status != rest) problem(fmt::format("answer {} instead of {}{}", status, rest, records.empty() ? "" : ": " + records.back().why));
    } else if (word == "answer" && rest == "protected") {
        if (!transaction_ || transaction_->reply_flow().local.port.value < 6200) problem("the answer does not leave from port_pc");
    } else if (word == "answer" && expect_message("the answer", answer_, rest)) {
    } else if (word == "core" && rest == "nothing") {
        if (!core_.empty()) problem("the core saw:\n" + core_);
    } else if (word == "core" && rest.starts_with("indicator ")) {
        if (const auto is = indicator_of(core_); is != rest.substr(10)) problem(fmt::format("integrity-protected is {} instead of {}", is, rest.substr(10)));
    } else if (word == "core") {
        if (core_.empty()) return problem("the core saw nothing");
        if (rest != "REGISTER" && !expect_message("the core's REGISTER", core_, rest)) problem("not understood: " + line);
    } else if (word == "chosen") {
        if (const auto is = records.empty() ? std::string("?") : records.back().choice; is != rest) problem(fmt::format("chosen \"{}\" instead of \"{}\"", is, rest));
    } else if (word == "verdict") {
        if (verdict_ != rest) problem(fmt::format("verdict {} instead of {}", verdict_, rest));
    } else if (line == "own SPIs differ") {
        std::set<std::uint32_t> all;
        for (const auto& owner : world().owners())
            for (const auto spi : {owner.set->parameters.spi_pc, owner.set->parameters.spi_ps, owner.set->parameters.spi_uc, owner.set->parameters.spi_us})
                if (!all.insert(spi.value).second) problem(fmt::format("SPI {} occurs twice", spi.value));
    } else if (word == "list" || word == "lists") {
        expect_lists({word, rest, line_});
    } else if (!expect_count(word, rest)) {
        problem("not understood: " + line);
    }
}

// "lists equal", "lists differ", "lists equal without q", "lists malformed", "list Security-Client: tls, digest" (of the message before).
void Runner::expect_lists(const Block& block) {
    std::vector<Result<sip::SecurityList>> lists;
    if (block.info == "list") {
        const auto colon = block.text.find(": ");
        const auto message = sip::Message::parse(std::string_view(sent_));
        if (!message || colon == std::string::npos) return problem("no message to take a list from");
        const auto list = sip::SecurityList::from(*message, sip::header_id(block.text.substr(0, colon)));
        const auto is = list ? list->to_string() : list.error().text;
        if (is != block.text.substr(colon + 2)) problem(fmt::format("the list is \"{}\"", is));
        return;
    }
    for (const auto& text : lists_) {
        const auto colon = text.find(": ");
        lists.push_back(sip::SecurityList::parse(text.substr(colon + 2), !text.starts_with("Security-Client")));
    }
    for (const auto& list : lists) {
        if (list && block.text == "malformed") problem("parses: " + list->to_string());
        if (!list && block.text != "malformed") return problem(list.error().text);
    }
    auto words = block.text;
    if (takes_prefix(words, "have ")) {
        for (const auto& list : lists)
            if (std::to_string(list->mechanisms().size()) + " mechanisms" != words) problem(fmt::format("{} mechanisms", list->mechanisms().size()));
        return;
    }
    if (words == "malformed" || words == "parse") return;
    if (words != "equal" && words != "differ" && words != "equal without q") return problem("not understood: lists " + words);
    for (std::size_t i = 1; i < lists.size(); ++i) {
        const auto what = sip::difference(*lists[0], *lists[i], {.ignore_q = words == "equal without q"});
        if (what.has_value() != (words == "differ")) problem(fmt::format("list {}: {}", i + 1, what.value_or("equal")));
    }
}

}  // namespace gmgate::test
