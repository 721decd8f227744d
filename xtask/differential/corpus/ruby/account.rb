require "json"

module Bank
  class Account
    attr_reader :balance, :owner

    def initialize(owner, balance = 0)
      @owner = owner
      @balance = balance
    end

    def deposit(amount)
      raise ArgumentError, "negative" if amount < 0
      @balance += amount
      puts "deposited #{amount}"
      self
    end

    def withdraw(amount)
      return false unless amount <= @balance
      @balance -= amount
      true
    end

    def to_json(*args)
      { owner: @owner, balance: @balance }.to_json(*args)
    end
  end
end

accounts = %w[ada bob].map { |name| Bank::Account.new(name) }
accounts.each do |account|
  account.deposit(10)
  account.deposit(20).withdraw(5)
  puts account.to_json
end
puts accounts.map(&:balance).sum
