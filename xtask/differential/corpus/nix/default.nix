{ pkgs ? import <nixpkgs> { }, lib ? pkgs.lib }:
let
  version = "1.0";
  mkTool = name: pkgs.stdenv.mkDerivation {
    inherit version;
    pname = name;
    src = ./.;
    buildInputs = with pkgs; [ zlib openssl ];
  };
in
rec {
  tool = mkTool "tool";
  other = mkTool "other-${version}";
  enabled = if lib.versionAtLeast version "1.0" then true else false;
  all = map (x: x) [ tool other ];
}
