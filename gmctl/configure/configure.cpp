#include "gmctl/configure/configure.h"

#include <histedit.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <iostream>
#include <memory>

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
    Session session(ask_parser(sample_text()), std::move(*document), file->path(), options.prompt,
                    [&](const std::string& text) { return file->replace(text); });
    std::string line;
    if (isatty(STDIN_FILENO)) {
        Editor editor(session);
        while (!session.is_over() && editor.read(line)) print(session.execute(line));
        if (!session.is_over()) print("\n");
    } else {
        while (!session.is_over() && std::getline(std::cin, line)) print(session.execute(line));
    }
    if (session.has_unsaved()) {
        std::fprintf(stderr, "gmctl: what was typed since the last done is not in the file\n");
        return 1;
    }
    return 0;
}

}  // namespace gmgate::daemon::configure
