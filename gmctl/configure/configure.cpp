#include "gmctl/configure/configure.h"

#include <histedit.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string_view>

#include "gmctl/configure/difference.h"
#include "gmctl/configure/document.h"
#include "gmctl/configure/file.h"
#include "gmctl/configure/schema.h"
#include "gmctl/configure/session.h"

namespace gmgate::daemon::configure {
namespace {

constexpr int kRemembered = 500;  // lines

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

// libedit with the session's prompt, completion and help. One at a time: libedit's prompt function gets no pointer of
// ours but client data.
class Editor {
public:
    explicit Editor(Session& session)
        : session_(session),
          history_(history_init(), &history_end),
          edit_(el_init("gmctl", stdin, stdout, stderr), &el_end) {
        HistEvent event;
        history(history_.get(), &event, H_SETSIZE, kRemembered);
        history(history_.get(), &event, H_SETUNIQUE, 1);
        el_set(edit_.get(), EL_CLIENTDATA, this);
        el_set(edit_.get(), EL_PROMPT, &Editor::prompt);
        el_set(edit_.get(), EL_EDITOR, "emacs");
        el_set(edit_.get(), EL_SIGNAL, 1);  // the terminal is put back before ^C ends us
        el_set(edit_.get(), EL_HIST, history, history_.get());
        el_set(edit_.get(), EL_ADDFN, "gm-complete", "complete the word", &Editor::complete);
        el_set(edit_.get(), EL_ADDFN, "gm-help", "tell what can be typed", &Editor::help);
        el_set(edit_.get(), EL_BIND, "^I", "gm-complete", nullptr);
        el_set(edit_.get(), EL_BIND, "?", "gm-help", nullptr);
    }
    // Nothing at the end of input.
    bool read(std::string& line) {
        prompt_ = session_.prompt();
        int count = 0;
        const char* got = el_gets(edit_.get(), &count);
        if (!got || count <= 0) return false;
        line.assign(got, static_cast<std::size_t>(count));
        if (line.find_first_not_of(" \t\r\n") != std::string::npos) {
            HistEvent event;
            history(history_.get(), &event, H_ENTER, line.c_str());
        }
        return true;
    }

private:
    static Editor& self(EditLine* edit) {
        Editor* editor = nullptr;
        el_get(edit, EL_CLIENTDATA, &editor);
        return *editor;
    }
    static char* prompt(EditLine* edit) { return self(edit).prompt_.data(); }
    static std::string before_cursor(EditLine* edit) {
        const auto* line = el_line(edit);
        return {line->buffer, line->cursor};
    }
    static unsigned char complete(EditLine* edit, int) {
        const auto line = before_cursor(edit);
        const auto found = self(edit).session_.complete(line);
        if (found.empty()) return CC_ERROR;
        const auto typed =
            line.size() - (line.find_last_of(" \t") == std::string::npos ? 0 : line.find_last_of(" \t") + 1);
        auto common = found.front();
        for (const auto& word : found) {
            std::size_t same = 0;
            while (same < common.size() && same < word.size() && common[same] == word[same]) ++same;
            common.resize(same);
        }
        if (found.size() == 1) common += ' ';
        if (common.size() > typed) {
            el_insertstr(edit, common.c_str() + typed);
            return CC_REFRESH;
        }
        std::string list = "\n";
        for (const auto& word : found) list += "  " + word + "\n";
        print(list);
        return CC_REDISPLAY;
    }
    static unsigned char help(EditLine* edit, int) {
        print("?\n" + self(edit).session_.help(before_cursor(edit)));
        return CC_REDISPLAY;
    }

    Session& session_;
    std::string prompt_;
    std::unique_ptr<History, decltype(&history_end)> history_;
    std::unique_ptr<EditLine, decltype(&el_end)> edit_;
};

// What a script may run into when it is run again, or makes a file out of nothing.
bool is_harmless(std::string_view line) {
    line = line.substr(0, line.find('\n'));
    return line == "% nothing has been changed" || line.ends_with(" in the file yet; set a parameter to make one");
}

bool is_refusal(std::string_view said) {
    for (std::size_t at = 0; at < said.size(); at = std::min(said.find('\n', at), said.size() - 1) + 1) {
        const auto line = said.substr(at);
        if (line.starts_with("% kept,")) return false;  // what follows is what the file needs besides
        if (line.starts_with("% ") && !is_harmless(line)) return true;
    }
    return false;
}

/// One run of the shell over one file. Unless somebody types on a terminal, what is done is written at the end.
class Run {
public:
    Run(const Options& options, File& file)
        : options_(options),
          file_(file),
          before_(file.text()),
          is_terminal_(isatty(STDIN_FILENO) != 0),
          is_deferred_(options.is_dry_run || !is_terminal_) {}

    int session(Document document) {
        Session session(ask_parser(sample_text()), std::move(document), file_.path(), options_.prompt,
                        [this](const std::string& text) { return save(text); });
        session.set_actions({[this] { return activate(); },
                             [this](const std::string& name, const std::string& text) { return back_up(name, text); },
                             [this](const std::string& name) { return backup(name); }});
        if (is_terminal_) type(session);
        else if (!read(session)) return 1;
        if (session.has_unsaved()) {
            std::fprintf(stderr, "gmctl: what was typed since the last done is not in the file\n");
            return 1;
        }
        return finish();
    }

private:
    Result<void> save(const std::string& text) {
        if (!is_deferred_) return file_.replace(text);
        pending_ = text;
        return {};
    }
    Result<std::string> activate() {
        if (options_.is_dry_run) return std::string("dry run: nothing is activated\n");
        if (pending_) {
            if (auto ok = file_.replace(*pending_); !ok) return std::unexpected(ok.error());
            pending_.reset();
        }
        if (!options_.activate) return failure(Reaction::refused, "no gateway is asked from here: gmctl reload");
        return options_.activate();
    }
    std::string backup_path(const std::string& name) const { return file_.path() + ".backup-" + name; }
    Result<void> back_up(const std::string& name, const std::string& text) {
        if (options_.is_dry_run) return {};
        auto copy = File::open(backup_path(name));
        if (!copy) return std::unexpected(copy.error());
        return copy->replace(text);
    }
    Result<std::string> backup(const std::string& name) const {
        if (access(backup_path(name).c_str(), R_OK) != 0)
            return failure(Reaction::reject,
                           "there is no backup \"" + name + "\": " + backup_path(name) + " cannot be read");
        auto copy = File::open(backup_path(name));
        if (!copy) return std::unexpected(copy.error());
        return copy->text();
    }

    void type(Session& session) const {
        std::string line;
        Editor editor(session);
        while (!session.is_over() && editor.read(line)) print(session.execute(line));
        if (!session.is_over()) print("\n");
    }
    // False: a line was refused.
    bool read(Session& session) const {
        std::string line;
        for (int number = 1; !session.is_over() && std::getline(std::cin, line); ++number) {
            const auto said = session.execute(line);
            print(said);
            if (!is_refusal(said)) continue;
            std::fprintf(stderr, "gmctl: stopped at line %d, \"%s\": nothing is written\n", number, line.c_str());
            return false;
        }
        return true;
    }
    int finish() {
        if (options_.is_dry_run) {
            const auto changes = difference(before_, pending_.value_or(before_), file_.path());
            print(changes.empty() ? "dry run: nothing would change\n" : changes);
            return 0;
        }
        if (!pending_) return 0;
        if (const auto written = file_.replace(*pending_); !written) {
            std::fprintf(stderr, "gmctl: not saved: %s\n", written.error().text.c_str());
            return 1;
        }
        return 0;
    }

    const Options& options_;
    File& file_;
    std::string before_;
    bool is_terminal_, is_deferred_;
    std::optional<std::string> pending_;
};

}  // namespace

int run(const Options& options) {
    std::setlocale(LC_CTYPE, "");
    auto file = File::open(options.config);
    if (!file) {
        std::fprintf(stderr, "gmctl: %s\n", file.error().text.c_str());
        return 2;
    }
    auto document = Document::parse(file->text(), file->path());
    if (!document) {
        std::fprintf(stderr, "%s\ngmctl: the file is not TOML; mend this line first, then configure\n",
                     document.error().text.c_str());
        return 2;
    }
    if (access(file->path().c_str(), F_OK) == 0 && access(file->path().c_str(), W_OK) != 0)
        std::fprintf(stderr, "gmctl: %s can be read but not changed by this user\n", file->path().c_str());
    return Run(options, *file).session(std::move(*document));
}

}  // namespace gmgate::daemon::configure
