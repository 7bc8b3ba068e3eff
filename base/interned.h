// Values of which a process has few different ones and many equal ones: equal ones are one.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

namespace gmgate {

/// A value that cannot change, shared with all that are equal. A default one takes nothing. Any thread. `T` has `<`,
/// `==` and a default.
template <class T>
class Interned {
public:
    Interned() = default;
    // NOLINTNEXTLINE(google-explicit-constructor): a value like others, only kept in another way
    Interned(T value) : shared_(value == T{} ? nullptr : pool().share(std::move(value))) {}

    /// A list of them.
    template <class U = T>
    requires requires { typename U::value_type; }
    Interned(std::initializer_list<typename U::value_type> values) : Interned(U(values)) {}

    const T& value() const {
        static const T kNone{};
        return shared_ ? *shared_ : kNone;
    }
    // NOLINTNEXTLINE(google-explicit-constructor)
    operator const T&() const { return value(); }
    const T* operator->() const { return &value(); }
    friend bool operator==(const Interned& a, const Interned& b) { return a.shared_ == b.shared_; }
    friend bool operator==(const Interned& a, const T& b) { return a.value() == b; }

    /// How many different ones there are.
    static std::size_t count() { return pool().count(); }

private:
    class Pool {
    public:
        std::shared_ptr<const T> share(T value) {
            if (auto known = find(value)) return known;
            // Without the lock, which the deleter takes when memory is out. Its own allocation: with make_shared() the
            // value would stay as long as the pool looks at it.
            std::shared_ptr<const T> fresh(new T(std::move(value)), [this](const T* last) {
                forget(*last);
                delete last;
            });
            const std::lock_guard guard(mutex_);
            auto& place = values_[*fresh];
            if (auto known = place.lock()) return known;  // another thread was faster
            place = fresh;
            return fresh;
        }
        std::size_t count() const {
            const std::lock_guard guard(mutex_);
            return values_.size();
        }

    private:
        std::shared_ptr<const T> find(const T& value) const {
            const std::lock_guard guard(mutex_);
            const auto at = values_.find(value);
            return at == values_.end() ? nullptr : at->second.lock();
        }
        void forget(const T& value) {
            const std::lock_guard guard(mutex_);
            const auto at = values_.find(value);
            if (at != values_.end() && at->second.expired()) values_.erase(at);  // else an equal one has come meanwhile
        }
        mutable std::mutex mutex_;
        std::map<T, std::weak_ptr<const T>> values_;
    };
    static Pool& pool() {
        static auto& all = *new Pool;  // never ends: values in static objects may end later
        return all;
    }

    std::shared_ptr<const T> shared_;
};

}  // namespace gmgate
