// gmue run: a phone that stays and obeys commands on standard input.
#include "scenarios.h"

#include "../common/bytes.h"
#include "../common/line_input.h"
#include "../common/text.h"

namespace gmgate::peers {
namespace {

/// What LineInput's end is in the mailbox of commands.
constexpr std::string_view kEnd = "\x04";

struct Command {
    std::string word;
    std::string first;
    std::string rest;
};

Command parse_command(const std::string& line) {
    const auto cut = [](std::string_view text) {
        const auto blank = text.find(' ');
        return std::pair{std::string(text.substr(0, blank)),
                         blank == std::string_view::npos ? std::string() : std::string(trim(text.substr(blank)))};
    };
    const auto [word, tail] = cut(line);
    const auto [first, rest] = cut(tail);
    return {word, first, rest};
}

Duration duration_of(const std::string& text, double fallback) {
    double seconds = fallback;
    if (!text.empty()) seconds = std::strtod(text.c_str(), nullptr);
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

class Session {
public:
    Session(Phone& phone, PhoneEnvironment& environment, const Options& options)
        : phone_(phone),
          env_(environment),
          options_(options),
          box_(environment.loop),
          input_(
              environment.loop, [this](std::string line) { box_.put(std::move(line)); },
              [this] { box_.put(std::string(kEnd)); }) {}

    Task<void> obey() {
        for (;;) {
            const std::optional<std::string> line = co_await box_.take(Clock::now() + std::chrono::hours(1));
            if (!line || line->empty() || line->starts_with('#')) continue;
            if (*line == kEnd) {
                if (options_.stay) continue;
                if (phone_.is_registered() && !options_.no_deregister)
                    (void)co_await phone_.register_now(RegisterKind::deregister, {});
                co_return;
            }
            const Command command = parse_command(*line);
            if (command.word == "quit") co_return;
            co_await run(command);
        }
    }

private:
    Task<void> run(Command command) {
        const std::string& word = command.word;
        if (co_await send_request(command)) co_return;
        if (word == "begin" && command.first != "begin") {  // goes on beside the next commands
            Command inner = parse_command(command.first + ' ' + command.rest);
            calls_.spawn(run(std::move(inner)));
        } else if (word == "fault") {
            set_fault(command.first);
        } else if (word == "forge") {  // forge first|last|double IMPI IMPU
            const Command user = parse_command(command.rest);
            Faults faults;
            faults.forge = command.first;
            faults.forge_impi = user.word;
            faults.forge_impu = user.first;
            phone_.set_faults(faults);
        } else if (word == "expires") {
            phone_.set_expires(to_number<std::uint32_t>(command.first).value_or(phone_.config().expires));
        } else if (word == "register") {
            (void)co_await phone_.register_now(RegisterKind::initial, {});
        } else if (word == "reregister") {
            std::vector<Header> headers;
            if (command.first == "challenge") headers.push_back({"X-Gmcore-Do", "challenge"});
            (void)co_await phone_.register_now(RegisterKind::refresh, std::move(headers));
        } else if (word == "deregister") {
            (void)co_await phone_.register_now(RegisterKind::deregister, {});
        } else if (word == "call" && !command.first.empty()) {
            // A call goes on beside the next commands, so that a re-registration during it can be tried.
            calls_.spawn(call(command.first, duration_of(command.rest, 1)));
        } else if (word == "hangup") {
            phone_.hang_up();
        } else if (word == "answer") {
            phone_.pick_up();
        } else if (word == "cancel") {
            co_await phone_.cancel_calls();
        } else if (word == "hold" || word == "resume") {
            const std::string direction = word == "hold" ? "sendonly" : "sendrecv";
            co_await phone_.renegotiate("INVITE", direction);
        } else if (word == "update") {
            const std::string direction = command.first.empty() ? std::string("sendrecv") : command.first;
            co_await phone_.renegotiate("UPDATE", direction);
        } else if (word == "wait") {
            co_await sleep_for(env_.loop, duration_of(command.first, 1));
        } else if (word == "status") {
            nlohmann::json status = phone_.status();
            status["phone"] = phone_.config().impi;
            env_.emit(std::move(status));
        } else {
            env_.emit({{"event", "error"}, {"text", "unknown command '" + word + "'"}});
        }
    }

    // False: it is no command that sends a request outside a dialog.
    Task<bool> send_request(const Command& command) {
        const std::string& word = command.word;
        if (word == "message" && !command.first.empty()) {
            (void)co_await phone_.message(command.first, command.rest);
        } else if (word == "options" && !command.first.empty()) {
            (void)co_await phone_.options(command.first);
        } else if (word == "sms" && !command.first.empty()) {
            const Command rest = parse_command(command.rest);
            const std::string text = rest.rest.empty() ? rest.first : rest.first + ' ' + rest.rest;
            (void)co_await phone_.sms(command.first, rest.word, text);
        } else if (word == "subscribe") {
            (void)co_await phone_.subscribe();
        } else if (word == "inject" && !command.first.empty()) {
            const auto bytes = from_hex(command.first);
            phone_.inject(bytes ? std::string(bytes->begin(), bytes->end()) : std::string());
        } else {
            co_return false;
        }
        co_return true;
    }

    void set_fault(const std::string& name) {
        Faults faults;
        if (name == "wrong-ik") faults.wrong_ik = true;
        else if (name == "wrong-res") faults.wrong_res = true;
        else if (name == "auts") faults.force_auts = true;
        else if (name == "no-esp") faults.no_esp = true;
        else if (name == "lose-200") faults.lose_200 = true;
        else if (name == "made-up-tag") faults.made_up_tag = true;
        else if (name != "none") env_.emit({{"event", "error"}, {"text", "unknown fault '" + name + "'"}});
        phone_.set_faults(faults);
    }

    Task<void> call(std::string to, Duration talk) { (void)co_await phone_.call(std::move(to), talk); }

    Phone& phone_;
    PhoneEnvironment& env_;
    const Options& options_;
    Mailbox<std::string> box_;
    LineInput input_;
    Tasks calls_;
};

}  // namespace

Task<Exit> run_interactive(const Options& options, PhoneEnvironment& environment, const Reporter& reporter) {
    auto config = make_config(options, 0);
    std::string trouble;
    std::unique_ptr<Phone> phone;
    if (!config) {
        trouble = config.error().text;
    } else {
        phone = std::make_unique<Phone>(environment, std::move(*config));
        if (auto ok = phone->open(); !ok) trouble = ok.error().text;
    }
    if (!trouble.empty()) {
        const Verdict verdict{false, 0, "local", trouble, {}};
        co_return reporter.verdict(verdict, "", "");
    }
    const Verdict first = co_await phone->register_now(RegisterKind::initial, {});
    if (!reporter.as_wished(first)) co_return reporter.verdict(first, "", "");
    Session session(*phone, environment, options);
    co_await session.obey();
    environment.emit({{"event", "bye"}, {"phone", phone->config().impi}});
    co_return Exit::ok;
}

}  // namespace gmgate::peers
