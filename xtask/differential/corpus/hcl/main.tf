terraform {
  required_version = ">= 1.0"
}

variable "region" {
  type    = string
  default = "eu"
}

resource "bucket" "logs" {
  name   = "logs-${var.region}"
  tags   = { env = "dev", owner = "ada" }
  count  = var.region == "eu" ? 1 : 0
  acl    = "private"
}

resource "bucket" "data" {
  name = "data"
  acl  = "private"
}

output "names" {
  value = [for b in [1, 2] : upper("x")]
}
