#include "xfrm/netlink/address_watch.h"

#include <algorithm>
#include <map>
#include <optional>

#include <linux/if_addr.h>
#include <net/if.h>
#include <netlink/addr.h>
#include <netlink/cache.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <sys/socket.h>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>

#include "xfrm/netlink/kernel_address.h"

namespace gmgate::xfrm {
namespace {

std::optional<Address> address_of(nl_addr* address) {
    if (!address) return std::nullopt;
    const int family = nl_addr_get_family(address);
    const auto length = nl_addr_get_len(address);
    if ((family == AF_INET && length == 4) || (family == AF_INET6 && length == 16))
        return address_from(nl_addr_get_binary_addr(address), family);
    return std::nullopt;
}

// The link itself. The cache holds a second object for a link that IPv6 has spoken of, with the flags of that moment,
// and rtnl_link_get() returns whichever comes first.
rtnl_link* find_link(nl_cache* links, int index) {
    for (auto* object = nl_cache_get_first(links); object; object = nl_cache_get_next(object)) {
        auto* link = reinterpret_cast<rtnl_link*>(object);
        if (rtnl_link_get_ifindex(link) == index && rtnl_link_get_family(link) == AF_UNSPEC) return link;
    }
    return nullptr;
}

}  // namespace

struct AddressWatch::Impl : std::enable_shared_from_this<AddressWatch::Impl> {
    Impl(asio::any_io_executor e, std::vector<Address> a, Handler h)
        : executor(std::move(e)), handle(std::move(h)), again(executor) {
        for (const auto& address : a) usable.emplace(address, true);
    }
    ~Impl() { close(); }

    Result<void> open();
    void close();
    void wait();
    void open_again();
    void compare();
    std::string trouble_with(const Address& address) const;

    asio::any_io_executor executor;
    Handler handle;
    std::map<Address, bool> usable;
    nl_cache_mngr* manager = nullptr;
    nl_cache* links = nullptr;  // both belong to the manager
    nl_cache* addresses = nullptr;
    std::optional<asio::posix::stream_descriptor> descriptor;
    asio::steady_timer again;
};

Result<void> AddressWatch::Impl::open() {
    const auto failed = [this](const char* what, int code) {
        close();
        return failure(Reaction::broken, std::string("cannot watch ") + what + ": " + nl_geterror(code), EIO);
    };
    if (const int code = nl_cache_mngr_alloc(nullptr, NETLINK_ROUTE, NL_AUTO_PROVIDE, &manager); code < 0)
        return failed("links and addresses", code);
    if (const int code = nl_cache_mngr_add(manager, "route/link", nullptr, nullptr, &links); code < 0)
        return failed("links", code);
    if (const int code = nl_cache_mngr_add(manager, "route/addr", nullptr, nullptr, &addresses); code < 0)
        return failed("addresses", code);
    descriptor.emplace(executor);
    asio::error_code error;
    descriptor->assign(nl_cache_mngr_get_fd(manager), error);
    if (error) return failed("its socket", -NLE_FAILURE);
    compare();
    wait();
    return {};
}

void AddressWatch::Impl::close() {
    if (descriptor && descriptor->is_open()) {
        asio::error_code ignored;
        descriptor->cancel(ignored);
        descriptor->release();  // the descriptor belongs to the cache manager
    }
    descriptor.reset();
    if (manager) nl_cache_mngr_free(manager);
    manager = nullptr;
    links = addresses = nullptr;
}

void AddressWatch::Impl::wait() {
    descriptor->async_wait(asio::posix::stream_descriptor::wait_read,
                           [weak = weak_from_this()](const asio::error_code& error) {
                               const auto self = weak.lock();
                               if (!self || error || !self->manager) return;
                               if (nl_cache_mngr_data_ready(self->manager) < 0)
                                   return self->open_again();  // messages were lost: the caches are stale
                               self->compare();
                               if (self->manager) self->wait();
                           });
}

// Fresh caches, in a while: whatever made the old ones stale may still be going on.
void AddressWatch::Impl::open_again() {
    close();
    again.expires_after(std::chrono::milliseconds{200});
    again.async_wait([weak = weak_from_this()](const asio::error_code& error) {
        const auto self = weak.lock();
        if (!self || error) return;
        if (!self->open()) self->open_again();
    });
}

// What keeps an address from being used; empty when nothing does. Addresses are few and events rare, so the caches are
// walked.
std::string AddressWatch::Impl::trouble_with(const Address& address) const {
    std::string trouble = "no link has it";
    for (auto* object = nl_cache_get_first(addresses); object; object = nl_cache_get_next(object)) {
        auto* entry = reinterpret_cast<rtnl_addr*>(object);
        if (address_of(rtnl_addr_get_local(entry)) != address) continue;
        auto* link = find_link(links, rtnl_addr_get_ifindex(entry));
        if (!link) continue;
        const auto flags = rtnl_link_get_flags(link);
        const std::string name = rtnl_link_get_name(link) ? rtnl_link_get_name(link) : "?";
        if (!(flags & IFF_UP)) trouble = "link " + name + " is down";
        else if (!(flags & IFF_RUNNING)) trouble = "link " + name + " has no carrier";
        else if (rtnl_addr_get_flags(entry) & IFA_F_DADFAILED) trouble = "another machine on link " + name + " has it";
        else if (rtnl_addr_get_flags(entry) & IFA_F_TENTATIVE)
            trouble = "link " + name + " is still asking whether another machine has it";
        else return {};
    }
    return trouble;
}

void AddressWatch::Impl::compare() {
    std::vector<Change> changes;  // first all, then told: a handler may end us
    for (auto& [address, is_usable] : usable) {
        auto trouble = trouble_with(address);
        if (trouble.empty() == is_usable) continue;
        is_usable = trouble.empty();
        changes.push_back({address, is_usable, std::move(trouble)});
    }
    for (const auto& change : changes) handle(change);
}

AddressWatch::AddressWatch(asio::any_io_executor executor, std::vector<Address> addresses, Handler handle)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(addresses), std::move(handle))) {}

AddressWatch::~AddressWatch() {
    impl_->again.cancel();
    impl_->close();
}

Result<void> AddressWatch::start() { return impl_->open(); }

}  // namespace gmgate::xfrm
