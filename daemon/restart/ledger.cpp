#include "daemon/restart/ledger.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace gmgate::daemon {

// The layout that processes share. Another version of it gets another word, and then nothing is resumed.
struct Ledger::Header {
    static constexpr std::uint64_t kWord = 0x676d6c6564676531;  // "gmledge1"
    std::uint64_t word;
    std::uint64_t slots;
    std::uint8_t unused[48];
};
struct Ledger::Slot {
    std::uint64_t connection;  // 0: free
    std::uint8_t transport, version, cipher, role, resumed;
    std::atomic<std::uint8_t> out_of_step;
    std::uint8_t unused[50];
};

Ledger::Ledger(sip::FileDescriptor memory, void* base, std::size_t slots)
    : memory_(std::move(memory)), base_(base), slots_(slots) {
    for (std::size_t i = slots_; i-- > 0;) {
        if (slot(i).connection == 0) free_.push_back(i);
        else places_[sip::ConnectionId{slot(i).connection}] = i;
    }
}

Ledger::Ledger(Ledger&& other) noexcept
    : memory_(std::move(other.memory_)),
      base_(std::exchange(other.base_, nullptr)),
      slots_(other.slots_),
      places_(std::move(other.places_)),
      free_(std::move(other.free_)) {}

Ledger::~Ledger() {
    if (base_) ::munmap(base_, sizeof(Header) + slots_ * sizeof(Slot));
}

Ledger::Slot& Ledger::slot(std::size_t index) const {
    static_assert(sizeof(Slot) == 64 && sizeof(Header) == 64);
    return *reinterpret_cast<Slot*>(static_cast<char*>(base_) + sizeof(Header) + index * sizeof(Slot));
}

Result<Ledger> Ledger::open(sip::FileDescriptor inherited, std::size_t slots) {
    const bool is_new = !inherited.is_open();
    if (is_new) inherited = sip::FileDescriptor(::memfd_create("gmgate-connections", MFD_CLOEXEC));
    if (!inherited.is_open()) return system_failure(Reaction::refused, "no memory for the list of connections", errno);
    struct stat file {};
    if (::fstat(inherited.get(), &file) != 0)
        return system_failure(Reaction::refused, "cannot look at the list of connections", errno);
    const auto had = static_cast<std::size_t>(file.st_size) < sizeof(Header)
                         ? 0
                         : (static_cast<std::size_t>(file.st_size) - sizeof(Header)) / sizeof(Slot);
    slots = std::max(slots, had);
    const auto size = sizeof(Header) + slots * sizeof(Slot);
    if (::ftruncate(inherited.get(), static_cast<off_t>(size)) != 0)
        return system_failure(Reaction::refused, "no memory for the list of connections", errno);
    void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, inherited.get(), 0);
    if (base == MAP_FAILED) return system_failure(Reaction::refused, "cannot map the list of connections", errno);
    auto* header = static_cast<Header*>(base);
    if (!is_new && header->word != Header::kWord) {
        ::munmap(base, size);
        return failure(Reaction::refused,
                       "the list of connections that came from the process before is of another version");
    }
    header->word = Header::kWord;
    header->slots = slots;
    return Ledger(std::move(inherited), base, slots);
}

std::optional<StepMark> Ledger::enter(const Entry& entry) {
    auto at = places_.find(entry.connection);
    if (at == places_.end()) {
        if (free_.empty()) return std::nullopt;
        at = places_.emplace(entry.connection, free_.back()).first;
        free_.pop_back();
    }
    auto& s = slot(at->second);
    s.out_of_step.store(0);
    s.transport = static_cast<std::uint8_t>(entry.transport);
    s.version = static_cast<std::uint8_t>(entry.session.version);
    s.cipher = static_cast<std::uint8_t>(entry.session.cipher);
    s.role = static_cast<std::uint8_t>(entry.session.role);
    s.resumed = entry.session.resumed;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    s.connection = entry.connection.value;  // last: now it counts
    return StepMark(&s.out_of_step);
}

void Ledger::leave(sip::ConnectionId connection) {
    const auto at = places_.find(connection);
    if (at == places_.end()) return;
    slot(at->second).connection = 0;
    free_.push_back(at->second);
    places_.erase(at);
}

std::optional<Ledger::Entry> Ledger::find(sip::ConnectionId connection) const {
    const auto at = places_.find(connection);
    if (at == places_.end()) return std::nullopt;
    const auto& s = slot(at->second);
    if (s.transport > 2 || s.version > 1 || s.cipher > 2 || s.role > 1) return std::nullopt;
    return Entry{connection,
                 static_cast<sip::Transport>(s.transport),
                 {static_cast<ktls::Version>(s.version), static_cast<ktls::Cipher>(s.cipher),
                  static_cast<ktls::Role>(s.role), s.resumed != 0},
                 s.out_of_step.load() == 0};
}

void Ledger::forget_all_but(const std::function<bool(sip::ConnectionId)>& keep) {
    std::vector<sip::ConnectionId> gone;
    for (const auto& [connection, index] : places_)
        if (!keep(connection)) gone.push_back(connection);
    for (const auto connection : gone) leave(connection);
}

}  // namespace gmgate::daemon
