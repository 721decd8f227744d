module Main where

import qualified Data.Map as Map
import Data.List (sortBy)

data Shape = Circle Double | Square Double deriving (Show, Eq)

area :: Shape -> Double
area (Circle r) = pi * r * r
area (Square s) = s * s

total :: [Shape] -> Double
total = sum . map area

main :: IO ()
main = do
  let shapes = [Circle 1, Square 2]
  print (total shapes)
  putStrLn "done"
  mapM_ print shapes
