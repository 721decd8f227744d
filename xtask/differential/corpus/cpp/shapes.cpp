#include <iostream>
#include <memory>
#include <vector>

namespace shapes {

class Shape {
 public:
  virtual ~Shape() = default;
  virtual double area() const = 0;
};

class Circle final : public Shape {
 public:
  explicit Circle(double radius) : radius_(radius) {}
  double area() const override { return 3.14159 * radius_ * radius_; }

 private:
  double radius_;
};

template <typename T, typename... Args>
std::unique_ptr<T> make(Args&&... args) {
  return std::unique_ptr<T>(new T(std::forward<Args>(args)...));
}

}  // namespace shapes

int main() {
  std::vector<std::unique_ptr<shapes::Shape>> all;
  all.push_back(shapes::make<shapes::Circle>(1.0));
  all.push_back(std::make_unique<shapes::Circle>(2.5));
  double total = 0;
  for (const auto& shape : all) {
    total += shape->area();
  }
  auto twice = [&](double x) { return x + x; };
  std::cout << "total " << twice(total) << std::endl;
  return 0;
}
